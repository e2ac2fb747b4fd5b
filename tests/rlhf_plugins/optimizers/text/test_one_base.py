"""Policy, reference, reward model and value model: one base in memory, and adapters."""

import random

import pytest
import torch
from optimizer_kit import LENGTH, PROMPTS, Recorder

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.model import weights_digest
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import FitJob, OptimizeJob
from rlhf_core.records import Answer, Question, Sample
from rlhf_core.run import Checkpoints
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.text.grading import RewardScale
from rlhf_plugins.optimizers.text.task import Task
from rlhf_plugins.policies.causal_lm import CausalLm
from rlhf_plugins.reward_models.ensemble import Ensemble
from rlhf_plugins.reward_models.pairwise import Pairwise

QUICK = {"steps": 2, "batch": 6, "minibatches": 2, "lr": 3e-3, "checkpoint_every": 1}


@pytest.fixture
def adapted(starter, tmp_path):
    """Makes policies with adapters on the same saved base; a quantised one is wider, a block is 64 numbers."""
    wide = tmp_path / "wide"
    shape = Starter(vocab_size=300, layers=1, width=192, heads=2)
    make_starter([p.text for p in PROMPTS], shape=shape, max_prompt_tokens=24, max_new_tokens=LENGTH, seed=1).save(wide)

    def make(quantise=None, dtype="float32"):
        policy = CausalLm(
            model=str(wide if quantise else starter), max_prompt_tokens=24, max_new_tokens=LENGTH, dtype=dtype,
            lora={"r": 2}, quantise=quantise,
        )  # fmt: skip
        policy.prepare([], [])
        return policy

    return make


def comparisons(n, seed):
    """Answers with many vowels are better."""
    rng = random.Random(seed)
    for i in range(n):
        prompt = PROMPTS[i % len(PROMPTS)]
        good, bad = ("".join(rng.choices(letters, k=6)) for letters in ("aeiou", "stnrl"))
        samples = tuple(Sample(prompt_id=prompt.id, text=text) for text in (good, bad))
        question = Question(prompt=prompt, samples=samples)
        yield Answer(question=question, feedback=question.compare([1, 0], annotator="a"))


def fitted(policy, adapters=True, **options):
    reward = Pairwise(adapters=adapters, epochs=2, lr=1e-2, batch=16, **options)
    reward.fit(FitJob(FeedbackSet.of(comparisons(64, 1)), FeedbackSet.of(comparisons(32, 2)), base=policy))
    return reward


def held(*modules):
    """Bytes of all distinct weights."""
    found = {weight.data_ptr(): weight.numel() * weight.element_size() for each in modules for weight in each}
    return sum(found.values())


def everything(policy, reference, reward, value):
    return [
        policy.lm.model.parameters(), reference.lm.model.parameters(), reward.scalar.parameters(),
        reward.scalar.backbone.parameters(), value.parameters(),
    ]  # fmt: skip


def test_four_models_are_one_base_and_adapters(adapted, tmp_path):
    reward = fitted(adapted())
    (tmp_path / "reward").mkdir()
    reward.save(tmp_path / "reward")
    loaded = Pairwise(adapters=True)
    loaded.load(tmp_path / "reward")
    samples = [Sample(prompt_id=PROMPTS[0].id, text=text) for text in ("aeiou", "stnrl")]
    before = reward.score(PROMPTS[:1] * 2, samples).mean
    assert before[0] > before[1]
    assert loaded.score(PROMPTS[:1] * 2, samples).mean == before

    policy, reference = adapted(), adapted()
    base = held([w for w in policy.lm.model.parameters() if not w.requires_grad])
    optimizer = Ppo(value_model="adapters", **QUICK)
    task = Task(OptimizeJob(policy, reference, loaded, PROMPTS), optimizer.config, Recorder(), name="Ppo")
    value = optimizer.learner(task).credit.model
    small = held([w for w in policy.lm.model.parameters() if w.requires_grad], value.parameters())
    assert held(*everything(policy, reference, loaded, value)) < base + 4 * small
    assert loaded.score(PROMPTS[:1] * 2, samples).mean == before


def test_training_on_one_base_changes_the_policy_alone(adapted):
    reward, policy, reference = fitted(adapted()), adapted(), adapted()
    scored = [Sample(prompt_id=PROMPTS[0].id, text=text) for text in ("aeiou", "stnrl")]
    before = reward.score(PROMPTS[:1] * 2, scored).mean
    run = Recorder()
    Ppo(run=run, value_model="adapters", **QUICK).optimize(OptimizeJob(policy, reference, reward, PROMPTS))
    assert reward.score(PROMPTS[:1] * 2, scored).mean == before
    assert run.rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert run.rows[1]["kl"] != 0
    assert all(row["value_grad_norm"] > 0 for row in run.rows)

    # The same with every model on a base of its own: what is shared is memory, nothing else.
    apart = adapted()
    reward = fitted(adapted())
    reward.share_base = lambda policy: None
    Ppo(value_model="adapters", **QUICK).optimize(OptimizeJob(apart, adapted(), reward, PROMPTS))
    own = [{n: w for n, w in p.lm.model.state_dict().items() if ".default." in n} for p in (policy, apart)]
    assert own[0].keys() == own[1].keys()
    assert all(torch.equal(own[0][name], own[1][name]) for name in own[0])


def test_killed_and_resumed_on_one_base(adapted, tmp_path):
    def train(run):
        policy = adapted()
        Ppo(run=run, value_model="adapters", value_start="reward", **QUICK).optimize(
            OptimizeJob(policy, adapted(), fitted(adapted()), PROMPTS)
        )
        return weights_digest(policy.lm)

    whole = train(Recorder())
    with pytest.raises(KeyboardInterrupt):
        train(Recorder(folder=tmp_path, stop_at=2))
    assert Checkpoints(tmp_path).latest()[0] == 1
    assert train(Recorder(folder=tmp_path)) == whole


@pytest.mark.parametrize("kind", ["adapters", "network"])
def test_a_value_model_starts_as_the_reward_model(adapted, policy, kind):
    own = adapted if kind == "adapters" else policy
    reward = fitted(own(), adapters=kind == "adapters")
    job = OptimizeJob(own(), own(), reward, PROMPTS)
    optimizer = Ppo(value_model=kind, value_start="reward", **QUICK)
    critic = optimizer.learner(Task(job, optimizer.config, Recorder(), name="Ppo")).credit
    critic.begin(RewardScale(mean=0.3, std=2.0))
    samples = [Sample(prompt_id=PROMPTS[0].id, text=text) for text in ("aeio", "stnr", "aste")]
    scores = torch.tensor(reward.score(PROMPTS[:1] * 3, samples).mean, dtype=torch.float32)
    ids, mask, _ = job.policy.lm.encode_pairs(PROMPTS[:1] * 3, [sample.text for sample in samples])
    found = critic.model.scalar.last_token_values(ids, mask).detach()
    torch.testing.assert_close(found, (scores - 0.3) / 2, rtol=1e-3, atol=1e-3)
    assert scores.std() > 0.1


def test_a_value_model_that_cannot_start_as_the_reward_model(adapted, job):
    whole, sharing = (OptimizeJob(adapted(), adapted(), fitted(adapted(), adapters=a), PROMPTS) for a in (False, True))
    for kind, given in (("adapters", whole), ("network", sharing), ("network", job())):
        with pytest.raises(TrainingError, match=f"`{kind}` cannot start as this reward model"):
            Ppo(value_model=kind, value_start="reward", **QUICK).optimize(given)
    with pytest.raises(ValueError, match="nothing of a reward model's"):
        Ppo(value_start="reward")


def test_an_ensemble_of_adapters_is_one_base_too(adapted):
    policy = adapted()
    ensemble = Ensemble(
        members=[{"use": "pairwise", "adapters": True, "epochs": 1, "lr": 1e-2}], copies=2, combine="mean"
    )
    data = FitJob(FeedbackSet.of(comparisons(64, 1)), FeedbackSet.of(comparisons(32, 2)), base=adapted())
    ensemble.fit(data)
    ensemble.share_base(policy)
    whole = held(policy.lm.model.parameters(), *(m.scalar.backbone.parameters() for m in ensemble.models))
    base = held([w for n, w in policy.lm.model.named_parameters() if ".lora_" not in n])
    assert whole < 1.5 * base
    samples = [Sample(prompt_id=PROMPTS[0].id, text=text) for text in ("aeiou", "stnrl")]
    scores = ensemble.score(PROMPTS[:1] * 2, samples)
    assert scores.members[0] != scores.members[1]


def test_adapters_need_a_policy_with_adapters(policy):
    with pytest.raises(DataError, match="this one has none"):
        fitted(policy())
    with pytest.raises(ValueError, match="leave `model` out"):
        Pairwise(adapters=True, model="gpt2")


def test_quantised_without_the_package(adapted, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(DataError, match="takes the package bitsandbytes"):
        adapted(quantise="4bit")


def test_only_adapters_are_trained_on_a_quantised_base():
    with pytest.raises(ValueError, match="lora"):
        CausalLm(model="gpt2", quantise="4bit")


def test_a_quantised_base_is_shared_and_trained_on(adapted, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    policy, reference = adapted("4bit", "bfloat16"), adapted("4bit", "bfloat16")
    linear = [part for part in policy.lm.model.modules() if hasattr(part, "base_layer")]
    assert len(linear) == 7
    for part in linear:
        stored = part.base_layer.weight
        assert stored.dtype == torch.uint8
        assert stored.numel() * 2 == part.in_features * part.out_features
    reward = fitted(adapted("4bit", "bfloat16"))
    run = Recorder()
    Ppo(run=run, value_model="adapters", **QUICK).optimize(OptimizeJob(policy, reference, reward, PROMPTS))
    assert run.rows[0]["kl"] == pytest.approx(0, abs=0.05)
    assert run.rows[-1]["grad_norm"] > 0
    (tmp_path / "policy").mkdir()
    policy.save(tmp_path / "policy")
    again = adapted("4bit", "bfloat16")
    again.load(tmp_path / "policy")
    own = [{n: w for n, w in p.lm.model.named_parameters() if ".default." in n} for p in (policy, again)]
    assert all(torch.equal(own[0][name], own[1][name]) for name in own[0])
    assert [s.text for s in again.sample(PROMPTS[:2], 1, 1)[0]] == [s.text for s in policy.sample(PROMPTS[:2], 1, 1)[0]]
