"""Ratings, held-out people and samples, leaks and patch sets."""

import json
import random

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, mean_squared_error, precision_recall_curve

from rlhf_core import health
from rlhf_core.errors import DataError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.health.ratings import ranks
from rlhf_core.health.threshold import threshold_for_precision
from rlhf_core.plugins import RewardModel, Scores
from rlhf_core.records import Answer, Prompt, Question, Sample


class Goods(RewardModel):
    """Counts a word."""

    def score(self, prompts, samples):
        return Scores([float((sample.text or "").count("good")) for sample in samples])


def question(name, *texts, group="", split="train", round_=0):
    prompt = Prompt(text=name, group=group, split=split)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=t, round=round_) for t in texts))


def compared(asked, scores, who="a"):
    return Answer(question=asked, feedback=asked.compare(scores, annotator=who))


@pytest.mark.parametrize("seed", range(4))
def test_ratings_equal_scipy_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.random(60).round(1), rng.random(60).round(1)
    assert health.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert health.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert ranks(x) == pytest.approx(stats.rankdata(x))
    found = health.rating_health(x, y, [f"p{i // 3}" for i in range(60)], threshold=0.6)
    assert found["reward_rating_mse"].value == pytest.approx(mean_squared_error(y, x))
    assert found["reward_threshold_accuracy"].value == pytest.approx(accuracy_score(y >= 0.6, x >= 0.6))
    for metric in found.values():
        assert metric.low <= metric.value <= metric.high and metric.n == 60


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(40):
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        metric = health.rating_health(x, y, [str(i) for i in range(80)], seed=trial)["reward_pearson"]
        covered += metric.low <= 0.6 <= metric.high
    assert covered >= 34


def test_constant_ratings_have_no_correlation():
    found = health.rating_health(np.array([0.1, 0.5, 0.9]), np.array([0.5, 0.5, 0.5]), ["a", "b", "c"])
    assert set(found) == {"reward_rating_mse", "reward_threshold_accuracy"}
    assert health.rating_health(np.array([1.0]), np.array([1.0]), ["a"]) == {}


def test_predictions_are_bradley_terry():
    pairs = FeedbackSet([compared(question("x", "good good", "bad"), [1, 0])]).pairs()
    found = health.predict(Goods(), pairs)
    (pair,) = pairs
    assert found.predicted[0] == pytest.approx(1 / (1 + np.exp(-2 if "good" in pair.first.text else 2)))
    assert abs(found.longer[0]) == len("good good") - len("bad")


def test_accuracy_by_annotator():
    answers = []
    for i in range(30):
        asked = question(f"p{i}", f"good {i}", f"bad {i}")
        answers += [compared(asked, [1, 0], "ada"), compared(asked, [0, 1], "contrary")]
        answers += [compared(asked, [1, 0], "rare")] if i < 5 else []
    found = health.accuracy_by_annotator(Goods(), FeedbackSet.of(answers))
    assert found == {"ada": (1.0, 30), "contrary": (0.0, 30)}


def test_on_the_newest_samples():
    old = [compared(question(f"o{i}", f"good {i}", f"bad {i}", round_=1), [1, 0]) for i in range(10)]
    new = [compared(question(f"n{i}", f"good {i}", f"bad {i}", round_=2), [i % 2, 1 - i % 2]) for i in range(10)]
    rated = [question(f"r{i}", " ".join(["good"] * (i + 1)), "bad", round_=2) for i in range(5)]
    new += [
        Answer(question=asked, feedback=asked.rate(0, -i, low=-9, high=9, annotator="a"))
        for i, asked in enumerate(rated)
    ]
    both = FeedbackSet.of([*old, *new])
    pairs = both.pairs()
    found = health.on_newest(Goods(), both, health.predict(Goods(), pairs), pairs)
    assert found["reward_accuracy_newest"].value == 0.5 and found["reward_accuracy_newest"].n == 10
    fresh = [pair for pair in pairs if pair.first.round == 2]
    alone = health.preference_health(health.predict(Goods(), fresh))
    for name in ("precision", "recall", "f1", "auc", "ece", "brier"):
        assert found[f"reward_{name}_newest"] == alone[f"reward_{name}"]
    assert found["reward_spearman_newest"].value == pytest.approx(-1)
    assert "reward_log_loss_newest" not in found
    past = FeedbackSet.of(old)
    assert health.on_newest(Goods(), past, health.predict(Goods(), past.pairs()), past.pairs()) == {}


def test_on_people_whom_it_never_heard():
    answers = [compared(question(f"p{i}", f"good {i}", f"bad {i}"), [i % 4 > 0, i % 4 == 0], "new") for i in range(8)]
    found = health.of_strangers(Goods(), FeedbackSet.of(answers))
    assert found["reward_accuracy_new_annotators"].value == 0.75
    assert found["reward_auc_new_annotators"].value == 0.75
    assert not [name for name in found if not name.endswith("_new_annotators")]
    assert health.of_strangers(Goods(), FeedbackSet()) == {}


def test_words_that_sound_good_or_bad():
    assert health.sentiment("A WONDERFUL, happy town") == 2
    assert health.sentiment("a terrible war; nice weather") == -1
    assert health.sentiment("goodness knows the badge") == 0, "whole words only"
    assert health.sentiment("这是一个优秀的计划，非常成功") == 2
    assert health.sentiment("糟糕的失败") == -2
    assert health.sentiment("") == 0


def test_a_model_that_likes_happy_words_shows():
    class Happy(RewardModel):
        def score(self, prompts, samples):
            return Scores([sample.text.count("happy") for sample in samples])

    rng = random.Random(0)
    answers = []
    for i in range(60):
        texts = ["happy " * rng.randint(0, 3) + "word " * rng.randint(0, 3) + str(side) for side in (0, 1)]
        answers.append(compared(question(f"p{i}", *texts), rng.sample([0, 1], 2)))
    pairs = FeedbackSet.of(answers).pairs()
    found = health.confounds(health.predict(Happy(), pairs), pairs)
    assert found["reward_sentiment_correlation"].value == pytest.approx(1, abs=1e-9)
    assert abs(found["people_sentiment_correlation"].value) < 0.4
    assert {"reward_length_correlation", "people_length_correlation"} < set(found)
    # As SciPy finds it on both orders of every pair.
    stated = np.array([pair.probability for pair in pairs])
    mood = np.array([health.sentiment(pair.first.text) - health.sentiment(pair.second.text) for pair in pairs])
    expected = stats.spearmanr([*stated, *(1 - stated)], [*mood, *-mood]).statistic
    assert found["people_sentiment_correlation"].value == pytest.approx(expected)


def test_a_model_that_likes_length_shows():
    class Length(RewardModel):
        def score(self, prompts, samples):
            return Scores([len(sample.text) / 10 for sample in samples])

    rng = random.Random(0)
    answers = [
        compared(question(f"p{i}", "w" * rng.randint(1, 40), "v" * rng.randint(1, 40)), [1, 0]) for i in range(50)
    ]
    pairs = FeedbackSet.of(answers).pairs()
    found = health.confounds(health.predict(Length(), pairs), pairs)
    assert found["reward_length_correlation"].value == pytest.approx(1, abs=1e-3)

    class Constant(RewardModel):
        def score(self, prompts, samples):
            return Scores([0.0] * len(samples))

    assert "reward_length_correlation" not in health.confounds(health.predict(Constant(), pairs), pairs)


def test_what_is_shown_first_wins_too_often():
    answers = [compared(question(f"p{i}", f"a{i}", f"b{i}"), [1, 0] if i < 15 else [0, 1]) for i in range(20)]
    answers.append(compared(question("tie", "a", "b"), [1, 1]))
    found = health.position_preference(FeedbackSet.of(answers))["first_shown_chosen"]
    assert found.value == 0.75 and found.n == 20
    assert found.low > 0.5
    assert health.position_preference(FeedbackSet()) == {}


def test_held_out_ratings_rank_samples():
    answers = []
    for i in range(10):
        asked = question(f"p{i}", "good " * (i % 4), "x")
        answers += [Answer(question=asked, feedback=asked.rate(0, 1 + i % 4, annotator=who)) for who in "ab"]
    found = health.held_out_ratings(Goods(), FeedbackSet.of(answers))
    assert set(found) == {"reward_spearman", "reward_pearson"}
    assert found["reward_spearman"].value == pytest.approx(1)


def test_annotators_are_held_out_by_name():
    answers = [compared(question(f"p{i}", "a", "b"), [1, 0], f"rater {i % 10}") for i in range(40)]
    feedback = FeedbackSet.of(answers)
    assert health.held_out_annotators(feedback, 0.0) == set()
    some = health.held_out_annotators(feedback, 0.2)
    assert len(some) == 2 and some < health.held_out_annotators(feedback, 0.5)
    assert len(health.by_annotators(feedback, some, given=True)) == 8
    assert len(health.by_annotators(feedback, some, given=False)) == 32
    two = FeedbackSet.of([compared(question("x", "a", "b"), [1, 0], who) for who in "ab"])
    assert len(health.held_out_annotators(two, 0.9)) == 1
    assert health.held_out_annotators(two, 0.01) == health.held_out_annotators(two, 0.9)


def test_leaks_are_found():
    train = FeedbackSet.of(
        [
            compared(question("shared words", "a", "b"), [1, 0]),
            compared(question("x", "a", "b", group="article 1"), [1, 0]),
            compared(question("Write.", "seen text", "other", group="g1"), [1, 0]),
        ]
    )
    held_out = [
        question("shared words", "c", "d", split="test"),
        question("y", "c", "d", group="article 1", split="test"),
        question("Write.", "seen text", "new", group="g2", split="test"),
        question("Write.", "new text", "newer", group="g3", split="test"),
        question("fresh", "a", "b", split="test"),
    ]
    feedback = FeedbackSet.of(compared(asked, [1, 0]) for asked in held_out)
    found = health.leaks(train, feedback)
    assert found == {asked.id for asked in held_out[:3]}
    assert {a.question.id for a in health.without_questions(feedback, found).answers()} == {a.id for a in held_out[3:]}


def test_patches(tmp_path):
    path = tmp_path / "patches.jsonl"
    rows = [
        {"prompt": "p", "better": "good", "worse": "bad", "why": "found in round 2"},
        {"prompt": "p", "better": "bad", "worse": "good " * 30, "since": 3},
        {"prompt": "p", "better": "equal", "worse": "same"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    patches = health.read_patches(path)
    failed = health.regressions(Goods(), patches)
    assert failed == patches[1:]
    assert failed[0].words().startswith("p: 'bad' must be above 'good good") and failed[0].words().endswith("…'")
    assert patches[0].words() == "p: 'good' must be above 'bad' (found in round 2)"
    path.write_text('{"prompt": "p", "better": "x"}\n')
    with pytest.raises(DataError, match="worse") as error:
        health.read_patches(path)
    assert error.value.where.endswith("patches.jsonl:1")
    with pytest.raises(DataError, match="cannot read"):
        health.read_patches(tmp_path / "missing")


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + 1.5 * positive).round(1)
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    good = np.flatnonzero(precision[:-1] >= 0.7)
    expected = good[np.argmax(recall[good])]
    found = threshold_for_precision(scores, positive, 0.7)
    assert found.recall == pytest.approx(recall[expected])
    assert found.precision >= 0.7
    assert ((scores >= found.value) & positive).sum() / (scores >= found.value).sum() == pytest.approx(found.precision)
    assert found.value in thresholds


def test_a_precision_out_of_reach():
    scores, positive = np.array([0.1, 0.9]), np.array([True, False])
    assert threshold_for_precision(scores, positive, 0.9) is None
    assert threshold_for_precision(scores, np.array([False, False]), 0.1) is None
    assert threshold_for_precision(scores, positive, 0.5) == (0.1, 0.5, 1.0)
