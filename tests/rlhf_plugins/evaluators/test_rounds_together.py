"""Evaluators that look at all rounds: ratings of policies, over-optimisation; and people's scores from a file."""

import json

import numpy as np
import pytest
from benchmark_kit import Speaker, job
from scipy.optimize import curve_fit
from sklearn.linear_model import LogisticRegression

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import PastRound, RewardModel, Scores
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.evaluators._strength import ELO, bradley_terry, length_controlled
from rlhf_plugins.evaluators.human_scores import HumanScores
from rlhf_plugins.evaluators.over_optimisation import OverOptimisation, fit_law, law, peak
from rlhf_plugins.evaluators.tournament import Tournament


class Counting(RewardModel):
    """Likes a letter."""

    def __init__(self, letter="a"):
        super().__init__()
        self.letter = letter

    def score(self, prompts, samples):
        return Scores([float(sample.text.count(self.letter)) for sample in samples])


PROMPTS = [Prompt(text=f"question {i}") for i in range(12)]


def samples(text, n=2):
    """`text(prompt number, sample number)`."""
    return [
        [Sample(prompt_id=p.id, text=text(i, j), tokens=(5, 6, 7)) for j in range(n)] for i, p in enumerate(PROMPTS)
    ]


# Strengths


def test_bradley_terry_equals_logistic_regression():
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 30, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    rows, won, weight = [], [], []
    for i in range(4):
        for j in range(4):
            if i != j:
                row = np.zeros(4)
                row[i], row[j] = 1, -1
                # Each win seen from both sides, so that no class is empty.
                rows += [row, -row]
                won += [1, 0]
                weight += [wins[i, j]] * 2
    fitted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=10_000)
    fitted.fit(rows, won, sample_weight=weight)
    expected = fitted.coef_[0] - fitted.coef_[0].mean()
    assert bradley_terry(wins, ties=0.0) == pytest.approx(expected, abs=1e-4)


def test_who_never_lost_is_not_infinitely_strong():
    strength = bradley_terry(np.array([[0.0, 20], [0, 0]]))
    # 20 wins and half a tie each way: odds of 20.25 to 0.25.
    assert strength[0] - strength[1] == pytest.approx(np.log(20.25 / 0.25), abs=1e-6)
    assert pytest.approx(10) == np.exp(400 / ELO)


def test_alone_there_is_nothing_to_win():
    assert bradley_terry(np.zeros((1, 1))).tolist() == [0]
    work = job(None, PROMPTS, {"challenger": samples(lambda i, j: "a")}, gold=Counting())
    assert Tournament().evaluate(work).metrics["elo"].value == 1000


def test_length_is_taken_out():
    rng = np.random.default_rng(1)
    longer = rng.normal(30, 40, 4000)
    # Half of the raters' choice is length alone: equally long answers would win half of the time.
    won = (rng.random(4000) < 1 / (1 + np.exp(-1.5 * np.tanh(longer / longer.std())))).astype(float)
    assert won.mean() > 0.6
    assert length_controlled(won, longer) == pytest.approx(0.5, abs=0.03)
    x = np.stack([np.ones(4000), np.tanh(longer / longer.std())], axis=1)
    theirs = LogisticRegression(C=1 / 0.01, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, won)
    assert length_controlled(won, longer) == pytest.approx(1 / (1 + np.exp(-theirs.coef_[0, 0])), abs=1e-5)
    assert length_controlled(np.ones(50), np.zeros(50)) < 1


def test_tournament_over_all_rounds(rlhf_conformance):
    rlhf_conformance(Tournament)
    start, second = samples(lambda i, j: "b"), samples(lambda i, j: "a" if i % 2 else "b")
    now = samples(lambda i, j: "aa" if i % 3 else "bb")
    past = [PastRound(0, start, {}), PastRound(1, second, {})]
    work = job(None, PROMPTS, {"challenger": now, "champion": second, "warm_start": start}, gold=Counting(), past=past)
    found = Tournament().evaluate(work)
    rows = {row["policy"]: row for row in found.tables["elo"]}
    assert list(rows) == ["round 0", "round 1", "challenger"]
    assert rows["round 0"]["elo"] == 1000 < rows["round 1"]["elo"] < rows["challenger"]["elo"]
    assert found.metrics["elo"].value == rows["challenger"]["elo"]
    assert found.metrics["elo"].low <= found.metrics["elo"].value <= found.metrics["elo"].high
    # Eight of twelve prompts are won from the start, four tied.
    assert rows["round 0"]["against_challenger"] == pytest.approx(2 / 12)
    # All are longer by one, so length explains nothing: eight of twelve prompts are won, two tied.
    assert found.metrics["win_rate_length_controlled"].value == pytest.approx(9 / 12, abs=1e-3)
    with pytest.raises(RlhfError, match="nobody to judge"):
        Tournament(judge="reward").evaluate(work)


# Over-optimisation


@pytest.mark.parametrize("kind", ["rl", "best_of_n"])
def test_the_fit_equals_scipy(kind):
    rng = np.random.default_rng(2)
    d = np.linspace(0.3, 6, 15)
    gold = law(d, 1.1, 0.35, kind) + 0.05 * rng.normal(size=15)
    theirs, _ = curve_fit(lambda x, a, b: law(x, a, b, kind), d, gold, p0=(1, 1))
    assert fit_law(d, gold, kind) == pytest.approx(theirs, rel=1e-5)
    fine = np.linspace(0.01, 20, 200_000)
    top = fine[np.argmax(law(fine, 1.1, 0.35, kind))]
    assert peak(1.1, 0.35, kind) == pytest.approx(top, abs=1e-3)


def test_a_score_that_only_rises_has_no_peak():
    assert peak(1.0, -0.1, "rl") is None
    assert peak(-1.0, 0.1, "best_of_n") is None
    assert peak(100.0, 0.1, "rl") is None


def test_the_gap_by_hand(speaker):
    # The proxy likes a, the gold judge likes b. At the start a sample has 0 or 2 a's (mean 1, deviation 1), 1 or 3 b's.
    start = samples(lambda i, j: ("" if j else "aa") + ("b" if i % 2 else "bbb"))
    now = samples(lambda i, j: "aaaa" + "b")
    other = Speaker(speaker.lm)
    work = job(
        speaker, PROMPTS, {"challenger": now, "warm_start": start}, reference=other,
        reward=Counting("a"), gold=Counting("b"),
    )  # fmt: skip
    found = OverOptimisation().evaluate(work)
    assert found.metrics["sqrt_kl"].value == 0
    assert found.metrics["proxy_gold_gap"].value == pytest.approx((4 - 1) / 1 - (1 - 2) / 1)
    assert "kl_at_peak" not in found.metrics


def test_a_peak_is_found_over_rounds(speaker, monkeypatch):
    monkeypatch.setattr(OverOptimisation, "_divergence", lambda self, work: 25.0)
    distances = [0.0, 1.0, 2.0, 3.0, 4.0]
    # 60 letters b at the start; then 10 more for each unit of a curve with its peak at d = e.
    gold = [60 + round(10 * float(law(np.array([d]), 2.0, 1.0, "rl")[0])) if d else 60 for d in (*distances, 5.0)]
    rounds = [
        PastRound(i, samples(lambda p, j, i=i: "b" * (gold[i] + (j if i == 0 else 0)) + "a" * (i + j)),
                  {"sqrt_kl": Metric(value=d)})
        for i, d in enumerate(distances)
    ]  # fmt: skip
    now = samples(lambda i, j: "b" * gold[5] + "a" * 9)
    work = job(speaker, PROMPTS, {"challenger": now}, reward=Counting("a"), gold=Counting("b"), past=rounds)
    found = OverOptimisation().evaluate(work)
    assert found.metrics["kl_at_peak"].value == pytest.approx(np.e**2, rel=0.1)
    assert found.metrics["gold_lost"].value > 0
    assert [row["round"] for row in found.tables["over_optimisation"]] == [1, 2, 3, 4, 5]


def test_over_optimisation_keeps_the_contract(speaker, rlhf_conformance):
    rlhf_conformance(OverOptimisation, policy=lambda: speaker)
    with pytest.raises(RlhfError, match="gold judge"):
        OverOptimisation().evaluate(job(speaker, PROMPTS))


# People's scores


def test_human_scores_by_hand(tmp_path):
    rows = [
        {"prompt": "question 0", "text": "x", "score": 4, "annotator": "a", "policy": "new"},
        {"prompt": "question 0", "text": "x", "score": 2, "annotator": "b", "policy": "new"},
        {"prompt": "question 1", "text": "x", "score": 5, "annotator": "a", "policy": "new"},
        {"prompt": "question 0", "text": "y", "score": 1, "annotator": "a", "policy": "old"},
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = job(None, PROMPTS, {"challenger": samples(lambda i, j: "x"), "warm_start": samples(lambda i, j: "y")})
    found = HumanScores(data=str(path)).evaluate(work).metrics
    assert found["human_score"].value == (3 + 5) / 2
    assert found["human_score_warm_start"].value == 1
    assert found["human_scored"].value == pytest.approx(2 / 12)
    whole = HumanScores(data="unused.jsonl").score_predictions(path)
    assert whole.metrics["human_score_new"].value == 4
    # Prompt 0: texts of 3 and 1, so 2; prompt 1: 5.
    assert whole.metrics["human_score"].value == 3.5
    assert [row["policy"] for row in whole.tables["human_scores"]] == ["new", "old"]
    with pytest.raises(DataError, match="none of the challenger's samples"):
        HumanScores(data=str(path)).evaluate(job(None, PROMPTS, {"challenger": samples(lambda i, j: "z")}))
    path.write_text('{"prompt": "p", "text": "t", "score": "good"}\n')
    with pytest.raises(DataError, match="row 1: the score is no number"):
        HumanScores(data=str(path)).score_predictions(path)


def test_human_scores_keep_the_contract(tmp_path, rlhf_conformance):
    from rlhf_core.testing import materials

    rows = [
        {"prompt": c.prompt.content, "text": s.text, "score": 3}
        for c in materials.candidates("text")
        for s in c.samples
    ]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(rows))
    rlhf_conformance(HumanScores, data=str(path))
