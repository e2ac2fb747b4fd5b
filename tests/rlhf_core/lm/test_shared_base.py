import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.lm.shared import share_base
from rlhf_core.lm.wearing import Wearing
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line on Monday")]


@pytest.fixture
def adapted(tmp_path):
    """Makes models on one base, each with random adapters of its own."""
    make_tiny().save(tmp_path / "base")

    def make(seed):
        lm = LanguageModel.from_pretrained(
            tmp_path / "base", max_prompt_tokens=48, max_new_tokens=12, lora=Lora(r=2), dtype="float32"
        )
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in lm.model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=random) / 10)
        return lm

    return make


def scores(lm):
    ids, mask = lm.encode(PROMPTS)
    with torch.no_grad():
        return sequence_logprobs(lm.model, ids, mask, 3)[0]


def held(*models):
    """Bytes of all distinct weights."""
    tensors = {weight.data_ptr(): weight for lm in models for weight in lm.model.parameters()}
    return sum(weight.numel() * weight.element_size() for weight in tensors.values())


def test_each_answers_as_before_with_the_memory_of_one(adapted):
    policy, reference = adapted(1), adapted(2)
    before = [scores(policy), scores(reference)]
    assert not torch.allclose(*before)
    base = held(policy) - sum(w.numel() * 4 for w in policy.model.parameters() if w.requires_grad)
    adapters = held(policy) - base
    assert held(policy, reference) == 2 * (base + adapters)
    assert share_base(policy, reference)
    assert held(policy, reference) == base + 2 * adapters
    assert torch.equal(scores(policy), before[0])
    assert torch.equal(scores(reference), before[1])
    assert torch.equal(
        reference.rollout(PROMPTS, seeds=[1, 2]).tokens, adapted(2).rollout(PROMPTS, seeds=[1, 2]).tokens
    )


def test_training_one_leaves_the_other_alone(adapted):
    policy, reference = adapted(1), adapted(2)
    trained = {name for name, weight in policy.model.named_parameters() if weight.requires_grad}
    share_base(policy, reference)
    before = scores(reference)
    assert {name for name, weight in policy.model.named_parameters() if weight.requires_grad} == trained
    optimizer = torch.optim.SGD([w for w in policy.model.parameters() if w.requires_grad], lr=1.0)
    ids, mask = policy.encode(PROMPTS)
    untrained = scores(policy)
    sequence_logprobs(policy.model, ids, mask, 3)[0].sum().backward()
    scores(reference)
    optimizer.step()
    assert torch.equal(scores(reference), before)
    assert not torch.equal(scores(policy), untrained)


def test_what_is_saved_are_the_models_own_adapters(adapted, tmp_path):
    policy, reference = adapted(1), adapted(2)
    policy.save(tmp_path / "alone")
    share_base(policy, reference)
    policy.save(tmp_path / "shared")
    files = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "shared") for path in (tmp_path / "shared").rglob("*.*"))
    for file in files:
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "shared" / file).read_bytes(), file
    assert torch.equal(scores(LanguageModel.load(tmp_path / "shared")), scores(policy))


def test_models_that_differ_in_more_are_left_alone(adapted, tmp_path):
    policy, whole = adapted(1), make_tiny()
    digest = weights_digest(policy)
    assert not share_base(policy, policy)
    assert not share_base(policy, whole)
    assert not share_base(whole, policy)
    other = adapted(2)
    other.base = {"name": "elsewhere", "revision": None}
    assert not share_base(policy, other)
    assert weights_digest(policy) == digest
    assert not isinstance(other.model, Wearing)
