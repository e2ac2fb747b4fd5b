import math
import subprocess
import sys

import pytest
import torch
from optimizer_kit import PROMPTS, Recorder, ShareOfVowels

from rlhf_core.errors import TrainingError
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.plugins import Scores
from rlhf_core.records import Answer, Question
from rlhf_plugins.optimizers.ppo import Ppo

QUICK = {"steps": 4, "batch": 12, "minibatches": 2, "lr": 1e-3, "checkpoint_every": 2}


def train(job, run=None, **config):
    run = run or Recorder()
    metrics = Ppo(run=run, **{**QUICK, **config}).optimize(job)
    return weights_digest(job.policy.lm), run.rows, metrics


def demonstrations(text="oia", weight=1.0):
    questions = [Question(prompt=prompt) for prompt in PROMPTS]
    return [Answer(question=q, feedback=q.demonstrate(text, weight=weight)) for q in questions]


def test_the_reward_rises_and_the_controller_holds_the_divergence_near_its_target(job):
    options = {"steps": 20, "batch": 32, "lr": 1e-2}
    _, free, metrics = train(job(), **options, kl={"coefficient": 0.0})
    _, held, _ = train(job(), **options, kl={"coefficient": 1.0, "target": 0.5, "horizon": 32})
    assert free[0]["kl"] == held[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert free[-1]["reward"] > free[0]["reward"] + 0.4
    assert held[-1]["reward"] < free[-1]["reward"] - 0.3
    assert free[-1]["kl"] > 8
    assert max(row["kl"] for row in held) < 2.5
    assert 0.1 < sum(row["kl"] for row in held[-4:]) / 4 < 1.0
    assert held[-1]["kl_coefficient"] > 1.0
    assert all(row["kl_k2"] >= 0 and row["kl_k3"] >= 0 and row["entropy"] > 0 for row in [*free, *held])
    assert metrics["reward"].value == pytest.approx(free[-1]["reward"])
    assert metrics["reward"].low < metrics["reward"].value < metrics["reward"].high


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"value_model": "network", "kl": {"coefficient": 0.1, "target": 0.5}, "micro_batch": 5},
        {"ptx": 0.3, "normalise_reward": False},
    ],
    ids=["head", "network", "ptx"],
)
def test_killed_and_resumed_is_as_if_nothing_happened(job, tmp_path, options):
    def keep(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    shown = demonstrations()
    whole, rows, metrics = train(job(demonstrations=shown, keep=keep("whole")), **options)
    for stop_at, redone in {1: [0, 1, 2, 3], 3: [2, 3], 4: [2, 3]}.items():
        folder = tmp_path / f"checkpoints-{stop_at}"
        with pytest.raises(KeyboardInterrupt):
            train(job(demonstrations=shown), Recorder(folder=folder, stop_at=stop_at), **options)
        run = Recorder(folder=folder)
        resumed, _, resumed_metrics = train(job(demonstrations=shown, keep=keep(f"{stop_at}")), run, **options)
        assert [row["step"] for row in run.rows] == redone
        assert resumed == whole
        assert resumed_metrics == metrics
        assert run.rows[-1]["kl_coefficient"] == rows[-1]["kl_coefficient"]
        kept = [(tmp_path / name / "value_model.safetensors").read_bytes() for name in ("whole", f"{stop_at}")]
        assert kept[0] == kept[1]


def test_another_seed_is_another_run(job):
    assert train(job())[0] == train(job())[0] != train(job(), Recorder(seed=1))[0]


class BreaksAt(ShareOfVowels):
    """Gives `value` to the third answer of the call number `call`."""

    def __init__(self, call, value):
        super().__init__()
        self.calls, self.call, self.value = 0, call, value

    def score(self, prompts, samples):
        mean = super().score(prompts, samples).mean
        self.calls += 1
        if self.calls == self.call:
            mean[2] = self.value
        return Scores(mean=mean)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_changes_nothing(job, tmp_path, value):
    # The first call normalises, so call 4 is step 3; the checkpoint of step 2 lies before it.
    whole, _, _ = train(job())
    after_two = job()
    with pytest.raises(KeyboardInterrupt):
        train(after_two, Recorder(stop_at=2))
    broken = job(reward=BreaksAt(call=4, value=value))
    with pytest.raises(TrainingError, match="step 3 of 4: 1 of 12 rewards are not finite") as raised:
        train(broken, Recorder(folder=tmp_path))
    assert "last good checkpoint stays" in str(raised.value)
    assert "BreaksAt" in str(raised.value)
    assert weights_digest(broken.policy.lm) == weights_digest(after_two.policy.lm)
    assert (tmp_path / "2").is_dir()
    assert train(job(), Recorder(folder=tmp_path))[0] == whole, "the repaired run goes on from there"


def test_a_reward_that_is_not_finite_on_the_reference(job):
    with pytest.raises(TrainingError, match="before the first step"):
        train(job(reward=BreaksAt(call=1, value=math.nan)))


@pytest.mark.parametrize("model", ["head", "network"])
def test_a_loss_that_is_not_finite_changes_nothing(job, model):
    broken = job(reward=BreaksAt(call=1, value=1e30))
    before = weights_digest(broken.policy.lm)
    with pytest.raises(TrainingError, match=r"step 1 of 4: a loss over 12 samples is not finite"):
        train(broken, normalise_reward=False, reward_clip=None, value_model=model)
    assert weights_digest(broken.policy.lm) == before


def test_an_outlier_is_clipped(job):
    train(job(reward=BreaksAt(call=2, value=1e30)))


def test_a_reward_model_that_forgets_a_sample(job):
    class Forgets(ShareOfVowels):
        def score(self, prompts, samples):
            return super().score(prompts[1:], samples[1:])

    with pytest.raises(TrainingError, match="scores for 12 samples"):
        train(job(reward=Forgets()))


def test_minibatches_are_optimizer_steps(job):
    results = {}
    for minibatches in (1, 3, 12):
        digest, rows, _ = train(job(), minibatches=minibatches, epochs=3, early_stop_kl=None)
        assert [row["updates"] for row in rows] == [3 * minibatches] * 4
        results[minibatches] = digest
    assert len(set(results.values())) == 3


def test_the_epochs_end_early_where_the_policy_has_moved_too_far(job):
    _, rows, _ = train(job(), lr=0.1, epochs=4, early_stop_kl=0.01)
    assert any(row["early_stop"] and row["updates"] < 8 for row in rows)
    assert all(row["updates"] >= 1 for row in rows)


def test_micro_batches_change_only_rounding(job):
    policies = []
    for size in (None, 3):
        one = job()
        train(one, steps=2, micro_batch=size)
        policies.append(one.policy.lm.model.state_dict())
    for name, tensor in policies[0].items():
        torch.testing.assert_close(tensor, policies[1][name], rtol=0, atol=2e-4, msg=name)
    assert any(not torch.equal(tensor, policies[1][name]) for name, tensor in policies[0].items())


def test_imitation_is_mixed_in(job):
    plain, _, _ = train(job())
    mixed, rows, _ = train(job(demonstrations=demonstrations()), ptx=2.0, steps=10, lr=5e-3)
    assert mixed != plain
    assert rows[-1]["ptx_loss"] < rows[0]["ptx_loss"] - 0.5
    unused, rows, _ = train(job(demonstrations=demonstrations()))
    assert unused == plain, "without ptx, demonstrations play no part"
    assert "ptx_loss" not in rows[0]


def test_imitation_of_nothing_is_refused(job):
    with pytest.raises(TrainingError, match="no demonstrations"):
        train(job(), ptx=1.0)


def test_no_prompts_is_refused(job):
    with pytest.raises(TrainingError, match="no training prompts"):
        train(job(prompts=[]))


def test_the_value_model_goes_on_in_the_next_round(job, tmp_path):
    train(job(keep=tmp_path))
    _, fresh, _ = train(job(), steps=1)
    _, carried, _ = train(job(previous=tmp_path), steps=1)
    assert fresh[0]["explained_variance"] == pytest.approx(0, abs=1e-6), "values begin at zero"
    assert abs(carried[0]["explained_variance"]) > 1e-4

    run = Recorder()
    train(job(previous=tmp_path), run, steps=1, value_model="network")
    assert "no value model of this shape" in run.notes[0]


def test_sampler_trainer_and_reference_speak_of_one_distribution(job, policy):
    """At any temperature, and with dropout in the model's config and the model left in training mode."""
    one, other = policy(temperature=0.6), policy(temperature=0.6)
    for each in (one, other):
        each.lm.model.train()
        for module in each.lm.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.5
    _, rows, _ = train(job(policy=one, reference=other), steps=1)
    assert rows[0]["logprob_mismatch"] < 1e-5
    assert abs(rows[0]["kl"]) < 1e-4
    hot, cold = (train(job(), steps=1, temperature=t)[1][0]["entropy"] for t in (1.5, 0.3))
    assert hot > cold > 0


def test_adapters_alone_are_trained_and_resumed(job, policy, starter, tmp_path):
    adapted = LanguageModel.from_pretrained(
        starter, max_prompt_tokens=24, max_new_tokens=8, lora=Lora(r=2), dtype="float32"
    )
    folder = tmp_path / "adapted"
    adapted.save(folder)
    before = adapted.model.state_dict()

    def make():
        return job(policy=policy(folder), reference=policy(folder))

    whole = make()
    digest, _, _ = train(whole, lr=1e-2)
    after = whole.policy.lm.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora" in name for name in changed)
    with pytest.raises(KeyboardInterrupt):
        train(make(), Recorder(folder=tmp_path / "run", stop_at=3), lr=1e-2)
    assert train(make(), Recorder(folder=tmp_path / "run"), lr=1e-2)[0] == digest


def test_a_batch_has_a_row_for_each_minibatch():
    with pytest.raises(ValueError, match="some would be empty"):
        Ppo(batch=4, minibatches=8)


def test_importing_the_plugin_is_light():
    code = "import sys, rlhf_plugins.optimizers.ppo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
