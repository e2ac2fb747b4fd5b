import copy

import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.errors import DataError
from rlhf_core.lm.adapted_head import AdaptedHead
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line on Monday")]


@pytest.fixture
def adapted(tmp_path):
    """Makes models on one base, each with random adapters of its own."""
    make_tiny().save(tmp_path / "base")

    def make(seed=1):
        lm = LanguageModel.from_pretrained(
            tmp_path / "base", max_prompt_tokens=48, max_new_tokens=12, lora=Lora(r=2), dtype="float32"
        )
        randomise({name: w for name, w in lm.model.named_parameters() if "lora_B" in name}, seed)
        return lm

    return make


@torch.no_grad()
def randomise(weights, seed):
    random = torch.Generator().manual_seed(seed)
    for _, weight in sorted(weights.items()):
        weight.copy_(torch.randn(weight.shape, generator=random) / 10)


def with_numbers(head, seed=3):
    """`head` with a random map."""
    randomise(dict(head.head.named_parameters()), seed)
    return head.eval()


def values(head, lm):
    with torch.no_grad():
        return head.last_token_values(*lm.encode(PROMPTS))


def test_it_says_what_a_head_on_a_merged_copy_says(adapted):
    lm = adapted()
    merged = with_numbers(ScalarHead.from_language_model(lm))
    shared = with_numbers(AdaptedHead.on(lm))
    torch.testing.assert_close(values(shared, lm), values(merged, lm), rtol=1e-5, atol=1e-5)


def test_training_changes_adapters_and_head_alone(adapted):
    lm = adapted()
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    answers = lm.rollout(PROMPTS, seeds=[1, 2]).tokens
    head = with_numbers(AdaptedHead.on(lm))
    start = values(head, lm)
    assert {name.partition(".")[0] for name, _ in head.named_parameters()} == {"adapters", "head"}
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    head.last_token_values(*lm.encode(PROMPTS)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in head.parameters())
    optimizer.step()
    assert (values(head, lm) - start).abs().max() > 1e-3
    after = lm.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(lm.rollout(PROMPTS, seeds=[1, 2]).tokens, answers)


def test_saved_and_loaded_it_says_the_same_on_any_copy_of_the_base(adapted, tmp_path):
    lm = adapted(1)
    head = with_numbers(AdaptedHead.on(lm))
    randomise(dict(head.adapters), 5)
    (tmp_path / "head").mkdir()
    head.save(tmp_path / "head")
    size = sum(file.stat().st_size for file in (tmp_path / "head").iterdir())
    assert size < sum(weight.numel() * 4 for weight in lm.model.parameters()) / 2, "the base is not saved"
    loaded = AdaptedHead.load(tmp_path / "head")
    assert torch.equal(values(loaded, lm), values(head, lm))
    other = adapted(2)
    digest = weights_digest(other)
    assert loaded.share_base(other)
    assert torch.equal(values(loaded, other), values(head, lm))
    pointers = {weight.data_ptr() for weight in other.model.parameters()}
    assert {weight.data_ptr() for weight in loaded.backbone.parameters()} <= pointers, "its own base is gone"
    (tmp_path / "policy").mkdir()
    other.save(tmp_path / "policy")
    assert weights_digest(LanguageModel.load(tmp_path / "policy")) == digest, "the policy saves its own adapters alone"


def test_a_copy_learns_by_itself_on_the_same_base(adapted):
    lm = adapted()
    head = with_numbers(AdaptedHead.on(lm))
    copied = copy.deepcopy(head).eval()
    before = values(head, lm)
    assert torch.equal(values(copied, lm), before)
    randomise(dict(copied.adapters), 9)
    assert not torch.allclose(values(copied, lm), before)
    assert torch.equal(values(head, lm), before)
    assert copied.backbone.parameters().__next__() is head.backbone.parameters().__next__()


def test_another_base_is_not_shared(adapted, tmp_path):
    lm = adapted()
    head = AdaptedHead.on(lm)
    make_tiny(seed=5).save(tmp_path / "another")
    other = LanguageModel.from_pretrained(
        tmp_path / "another", max_prompt_tokens=48, max_new_tokens=12, lora=Lora(r=2), dtype="float32"
    )
    assert not head.share_base(other)
    with pytest.raises(DataError, match="this one has none"):
        AdaptedHead.on(make_tiny())
