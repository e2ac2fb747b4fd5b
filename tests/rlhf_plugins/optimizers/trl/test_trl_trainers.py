import math

import pytest
from optimizer_kit import PROMPTS, Recorder, ShareOfVowels

from rlhf_core.errors import TrainingError
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.plugins import Scores
from rlhf_plugins.optimizers.trl_dpo import TrlDpo
from rlhf_plugins.optimizers.trl_grpo import TrlGrpo
from rlhf_plugins.optimizers.trl_kto import TrlKto
from rlhf_plugins.optimizers.trl_rloo import TrlRloo

KINDS = {
    "trl_grpo": (TrlGrpo, {"steps": 4, "batch": 6, "answers": 3}),
    "trl_rloo": (TrlRloo, {"steps": 4, "batch": 6, "answers": 3}),
    "trl_dpo": (TrlDpo, {"prompts": 12, "batch": 4, "answers": 3}),
    "trl_kto": (TrlKto, {"prompts": 12, "batch": 9, "answers": 3}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def train(kind, job, run=None, **options):
    optimizer, settings = KINDS[kind]
    run = run or Recorder()
    metrics = optimizer(run=run, **{"lr": 3e-3, "checkpoint_every": 1, **settings, **options}).optimize(job)
    return weights_digest(job.policy.lm), run.rows, metrics


@pytest.mark.parametrize("optimizer", [TrlGrpo, TrlDpo])
def test_keeps_the_contract(optimizer, policy, rlhf_conformance):
    short = {"steps": 1} if optimizer is TrlGrpo else {"prompts": 8}
    rlhf_conformance(optimizer, policy=policy, batch=4, answers=2, **short)


@each_kind
def test_it_learns_and_the_model_comes_back_as_it_was(job, kind):
    online = "steps" in KINDS[kind][1]
    made = job()
    model = made.policy.lm.model
    forward, name = model.forward, model.config._name_or_path
    _, _, untrained = train(kind, job(), lr=1e-12)
    _, rows, metrics = train(
        kind, made, **({"steps": 12, "batch": 12} if online else {"epochs": 12}), lr=1e-2, beta=0.02
    )
    if online:
        assert metrics["reward"].value > untrained["reward"].value + 0.05
    else:
        assert rows[-1]["policy_loss"] < rows[0]["policy_loss"] - 0.05
    assert metrics["kl"].value > 0.05
    assert untrained["kl"].value == pytest.approx(0, abs=1e-3)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert (model.forward, model.config._name_or_path) == (forward, name)
    assert not model.training
    assert made.policy.lm.tokenizer.padding_side == job().policy.lm.tokenizer.padding_side


@each_kind
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, kind):
    whole, rows, metrics = train(kind, job())
    with pytest.raises(KeyboardInterrupt):
        train(kind, job(), Recorder(folder=tmp_path, stop_at=3))
    run = Recorder(folder=tmp_path)
    resumed, _, resumed_metrics = train(kind, job(), run)
    assert [row["step"] for row in run.rows] == list(range(len(rows)))[-len(run.rows) :]
    assert 0 < len(run.rows) < len(rows)
    assert resumed == whole
    assert resumed_metrics == metrics


@each_kind
def test_a_reward_that_is_not_finite_changes_nothing(job, kind):
    class Breaks(ShareOfVowels):
        def score(self, prompts, samples):
            return Scores(mean=[*super().score(prompts, samples).mean[:-1], math.nan])

    broken = job(reward=Breaks())
    before = weights_digest(broken.policy.lm)
    with pytest.raises(TrainingError, match="rewards are not finite"):
        train(kind, broken)
    assert weights_digest(broken.policy.lm) == before


def test_what_trl_cannot_do_is_refused(job, policy, starter):
    with pytest.raises(TrainingError, match="no training prompts"):
        train("trl_dpo", job(prompts=[]))
    with pytest.raises(TrainingError, match="nothing to prefer"):
        train("trl_kto", job(reward=Same()))
    adapted = policy()
    adapted.lm = LanguageModel.from_pretrained(starter, max_prompt_tokens=24, max_new_tokens=8, lora=Lora(r=2))
    with pytest.raises(TrainingError, match="their own base"):
        train("trl_grpo", job(policy=adapted))


class Same(ShareOfVowels):
    def score(self, prompts, samples):
        return Scores(mean=[0.5] * len(samples))


def test_fewer_prompts_than_a_batch(job):
    _, rows, _ = train("trl_grpo", job(prompts=PROMPTS[:2]), steps=2)
    assert len(rows) == 2
