"""The reward rises as far as a bound on costs lets it."""

import pytest
from enumerable import PROMPT, ByText, expected, make_policy
from optimizer_kit import Recorder, ShareOfVowels
from pydantic import ValidationError

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import OptimizeJob, Scores
from rlhf_core.run import Run
from rlhf_plugins.optimizers.rloo import Rloo

PLAIN = {"normalise_reward": False, "reward_clip": None, "missing_eos_penalty": 0.0, "batch": 64, "lr": 1e-2}


class Risky(ByText):
    """The better an answer, the riskier: `a` has reward 1 and cost 1, any other nothing."""

    def __init__(self):
        super().__init__(lambda text: float(text == "a"))

    def score(self, prompts, samples):
        found = super().score(prompts, samples)
        return Scores(found.mean, criteria={"cost": list(found.mean)})


def optimised(**options):
    policy, reference = (make_policy(1) for _ in range(2))
    job = OptimizeJob(policy=policy, reference=reference, reward=Risky(), prompts=[PROMPT])
    run = Recorder()
    metrics = Rloo(run=run, **{**PLAIN, "kl": {"coefficient": 0.1}, "steps": 100, **options}).optimize(job)
    return expected(policy.lm, job.reward.table), metrics, run.rows


def test_the_bound_is_kept_and_used_up():
    free, _, _ = optimised(steps=40)
    assert free > 0.95
    bounded, metrics, rows = optimised(constraint={"limit": 0.4, "multiplier": 0.5, "rate": 0.1})
    late = [row["cost"] for row in rows[-40:]]
    assert sum(late) / len(late) == pytest.approx(0.4, abs=0.03)
    assert bounded == pytest.approx(0.4, abs=0.05)
    assert rows[0]["multiplier"] == 0.5
    assert metrics["cost"].low <= metrics["cost"].value <= metrics["cost"].high
    assert metrics["multiplier"].value == rows[-1]["multiplier"]


QUICK = {"steps": 4, "batch": 6, "answers": 3, "lr": 3e-3, "checkpoint_every": 2}
ENDS = {"by": {"use": "rule", "rules": [{"name": "cost", "pattern": "[aeiou]"}]}, "limit": 0.3, "rate": 0.5}


def test_killed_and_resumed_with_the_same_price(job, tmp_path):
    def train(work, run):
        Rloo(run=run, **QUICK, constraint=ENDS).optimize(work)
        return weights_digest(work.policy.lm), run.rows

    whole, rows = train(job(), Recorder())
    with pytest.raises(KeyboardInterrupt):
        train(job(), Recorder(folder=tmp_path, stop_at=4))
    resumed, again = train(job(), Recorder(folder=tmp_path))
    assert resumed == whole
    assert [row["multiplier"] for row in again] == [row["multiplier"] for row in rows[2:]]
    assert len({row["multiplier"] for row in rows}) == 4


class Broken(ShareOfVowels):
    """A cost that is none."""

    def score(self, prompts, samples):
        return Scores(super().score(prompts, samples).mean, criteria={"cost": [float("nan")] * len(samples)})


@pytest.mark.parametrize(
    ("constraint", "reward", "wrong"),
    [
        ({}, ShareOfVowels, "no criterion `cost`"),
        ({}, Broken, "step 1 of 4: a cost is not finite"),
        ({"by": {"use": "cost"}}, ShareOfVowels, "nobody has fitted it"),
    ],
)
def test_costs_that_are_none_change_nothing(job, constraint, reward, wrong):
    work = job(reward=reward())
    before = weights_digest(work.policy.lm)
    with pytest.raises(TrainingError, match=wrong):
        Rloo(run=Run(0), **QUICK, constraint=constraint).optimize(work)
    assert weights_digest(work.policy.lm) == before


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"constraint": {"folder": "x"}}, "needs `by`"),
        ({"constraint": {"multiplier": 11}}, "above the highest"),
        ({"constraint": {}, "processes": 2}, "one process"),
    ],
)
def test_settings_that_cannot_be(options, wrong):
    with pytest.raises(ValidationError, match=wrong):
        Rloo.Config(**options)
