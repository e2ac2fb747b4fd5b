import pytest
from scipy.stats import kendalltau

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import EvaluateJob, RewardModel, Scores
from rlhf_core.records import Prompt, Sample, Trajectory
from rlhf_plugins.evaluators.win_rate import WinRate, agreement, side_by_side, win_rates


class Number(RewardModel):
    """Scores a sample by the number that its text is, times a factor."""

    factor = 1.0

    def score(self, prompts, samples):
        return Scores([self.factor * float(sample.text) for sample in samples])


def job(gold=True, reward=True, factor=1.0, **answers):
    prompts = [Prompt(text=f"question {i}") for i in range(len(answers["challenger"]))]
    samples = {
        policy: [
            [Sample(prompt_id=prompt.id, text=str(text), policy=policy) for text in row]
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        for policy, rows in answers.items()
    }
    proxy = Number()
    proxy.factor = factor
    return EvaluateJob(prompts, samples, None, None, proxy if reward else None, Number() if gold else None)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(WinRate)


def test_win_rates_by_hand():
    # Prompt 1: 3 beats 1 and 2, 2 beats 1 and ties 2: 3.5 of 4. Prompt 2: 0 loses to 5.
    assert win_rates([[3, 2], [0]], [[1, 2], [5]]) == [3.5 / 4, 0.0]


def test_metrics_by_hand():
    evaluator = WinRate()
    found = evaluator.evaluate(
        job(
            challenger=[[3, 2], [4, 4], [1, 0]],
            champion=[[3, 3], [1, 1], [5, 5]],
            warm_start=[[1, 2], [4, 4], [0, 0]],
        )
    ).metrics
    assert set(found) == evaluator.produces(evaluator.config)
    assert found["win_rate_vs_champion"].value == pytest.approx((0.25 + 1 + 0) / 3)
    assert found["win_rate_vs_warm_start"].value == pytest.approx((3.5 / 4 + 0.5 + 0.75) / 3)
    assert found["preferred_vs_champion"].value == pytest.approx(1 / 3)
    assert found["preferred_vs_warm_start"].value == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["gold_score"].value == pytest.approx((2.5 + 4 + 0.5) / 3)
    assert found["gold_score_warm_start"].value == pytest.approx((1.5 + 4 + 0) / 3)
    assert found["proxy_score"] == found["gold_score"]
    assert found["reward_gold_agreement"].value == 1
    for metric in found.values():
        assert metric.n == (2 if metric is found["reward_gold_agreement"] or metric.n == 2 else 3)
        assert metric.low <= metric.value <= metric.high


def test_a_proxy_that_has_it_backwards_disagrees():
    found = WinRate().evaluate(job(factor=-1, challenger=[[3, 2]], warm_start=[[1, 2]])).metrics
    assert found["reward_gold_agreement"].value == 0
    assert found["proxy_score"].value == -2.5


def test_agreement_is_kendalls_tau():
    proxy, gold = [0.3, 2, 1, 5, 4], [1, 2, 3, 4, 5]
    assert agreement(proxy, gold) == pytest.approx((kendalltau(proxy, gold).statistic + 1) / 2)
    assert agreement([1, 2], [3, 3]) is None
    assert agreement([1, 1], [3, 4]) == 0.5


def test_a_clean_sweep_is_not_certainty():
    found = WinRate().evaluate(job(challenger=[[1], [1]], champion=[[0], [0]])).metrics["win_rate_vs_champion"]
    assert found.value == 1
    assert found.low < 0.5


def test_what_is_missing_is_left_out():
    first = WinRate().evaluate(job(reward=False, challenger=[[3, 2]])).metrics
    assert set(first) == {"gold_score"}
    assert "win_rate_vs_champion" not in WinRate().evaluate(job(challenger=[[1]], warm_start=[[2]])).metrics


def test_the_reward_model_as_judge():
    evaluator = WinRate(judge="reward")
    work = job(gold=False, challenger=[[3], [1]], champion=[[2], [2]], warm_start=[[0], [0]])
    found = evaluator.evaluate(work).metrics
    assert set(found) == evaluator.produces(evaluator.config)
    assert found["win_rate_vs_champion"].value == 0.5


@pytest.mark.parametrize(("judge", "absent"), [("gold", "gold"), ("reward", "reward")])
def test_nobody_to_judge(judge, absent):
    with pytest.raises(RlhfError, match="nobody to judge") as error:
        WinRate(judge=judge).evaluate(job(**{absent: False}, challenger=[[1]]))
    assert error.value.remedy


def test_a_judge_without_a_number_is_named():
    with pytest.raises(RlhfError, match="Number gave the scores"):
        WinRate().evaluate(job(challenger=[["nan"]]))


def test_samples_side_by_side_from_loss_to_gain():
    work = job(challenger=[[3], [0], [9]], champion=[[1], [1], [1]], warm_start=[[2], [2], [2]])
    table = WinRate(shown=2).evaluate(work).tables["samples"]
    assert [row["prompt"] for row in table] == ["question 1", "question 2"]
    assert table[1] == {
        "prompt": "question 2",
        "before": "2",
        "before_score": 2.0,
        "champion": "1",
        "champion_score": 1.0,
        "after": "9",
        "after_score": 9.0,
    }
    assert len(WinRate(shown=9).evaluate(work).tables["samples"]) == 3
    assert WinRate(shown=0).evaluate(work).tables["samples"] == []


def test_trajectories_are_shown_by_length():
    prompt = Prompt(text="x")
    sample = Sample(prompt_id=prompt.id, trajectory=Trajectory(observations=((0.0,),) * 7, actions=((1.0,),) * 7))
    rows = side_by_side([prompt], {"challenger": [[sample]]}, {"challenger": [[1.0]]}, 1)
    assert rows[0]["after"] == "7 steps"
