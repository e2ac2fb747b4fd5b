"""True returns by hand."""

import pytest

from control_kit import policy, sample_of, starts
from rlhf_core import Prompt, Sample, Trajectory
from rlhf_core.errors import DataError
from rlhf_core.plugins import EvaluateJob
from rlhf_plugins.evaluators.returns import Returns, true_return


def job(**returns):
    prompts = starts(count=len(returns["challenger"]))
    samples = {
        name: [[episode(prompt, total) for total in row] for prompt, row in zip(prompts, rows, strict=True)]
        for name, rows in returns.items()
    }
    return EvaluateJob(prompts, samples, None, None, None, None)


def episode(prompt, steps):
    trajectory = Trajectory(
        observations=((0.0,),) * steps, actions=((0.0,),) * steps, environment_rewards=(0.5,) * steps
    )
    return sample_of(prompt, trajectory)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Returns)


def test_metrics_by_hand():
    evaluator = Returns()
    found = evaluator.evaluate(job(challenger=[[2, 4], [6, 6]], champion=[[2, 2], [2, 2]], warm_start=[[8, 8], [0, 0]]))
    assert set(found.metrics) == evaluator.produces(evaluator.config)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values == pytest.approx(
        {
            "true_return": 2.25,
            "true_return_warm_start": 2.0,
            "episode_steps": 4.5,
            "return_gain_vs_champion": 1.25,
            "return_gain_vs_warm_start": 0.25,
        }
    )
    assert {metric.n for metric in found.metrics.values()} == {2}
    # Per start the gains over the champion are 0.5 and 2, so no resample's mean lies outside.
    gain = found.metrics["return_gain_vs_champion"]
    assert (gain.low, gain.high) == (0.5, 2.0)
    assert [row["median"] for row in found.tables["returns"]] == [2.25, 1.0, 2.0]


def test_the_first_champion_has_no_gain():
    assert set(Returns().evaluate(job(challenger=[[3]])).metrics) == {"true_return", "episode_steps"}


def test_it_needs_the_environments_rewards():
    prompts = starts(count=2)
    samples = policy().sample(prompts, 1, seed=0)
    assert true_return(samples[0][0]) == len(samples[0][0].trajectory.actions)
    with pytest.raises(DataError, match="no rewards of its environment"):
        true_return(samples[0][0].blind())
    with pytest.raises(DataError):
        true_return(Sample(prompt_id=Prompt(text="x").id, text="x"))
