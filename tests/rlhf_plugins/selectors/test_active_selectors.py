import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from rlhf_core import Candidate, Prompt, RewardModel, Sample, Scores
from rlhf_core.plugins import CONTROL_ARM as CONTROL
from rlhf_core.run import Run
from rlhf_plugins.selectors._active import entropy, scored_pairs
from rlhf_plugins.selectors._information import after, beliefs, predictive_information
from rlhf_plugins.selectors.diversity import Diversity
from rlhf_plugins.selectors.predictive_information import PredictiveInformation
from rlhf_plugins.selectors.uncertainty import Disagreement, ExpectedInformation, Uncertainty


class Members(RewardModel):
    """Three members whose scores stand in the sample's text, `1/2/3`."""

    def score(self, prompts, samples):
        table = np.array([[float(x) for x in s.text.split("/")] for s in samples]).T
        return Scores(table.mean(0).tolist(), table.std(0).tolist(), members=table.tolist())


class Alone(RewardModel):
    def score(self, prompts, samples):
        return Scores([float(s.text.split("/")[0]) for s in samples])


def candidate(name, *texts, split="train"):
    prompt = Prompt(text=name, split=split)
    return Candidate(prompt, [Sample(prompt_id=prompt.id, text=text) for text in texts])


SURE = candidate("sure", "0/0/0", "5/5/5")
"""All agree."""
TIED = candidate("tied", "1/2/3", "1/2/3.01")
"""All find it close: nobody can know."""
SPLIT = candidate("split", "0/0/0", "3/-3/3")
"""Sure of themselves, two against one."""
WIDE = candidate("wide", "0/0/0", "1/30/1")
"""Far apart, but all vote alike."""
ALL = [SURE, TIED, SPLIT, WIDE]


def first(selector, candidates=ALL, reward=None):
    (question,) = selector(control=0.0).select(candidates, 1, reward or Members())
    return question.prompt.text, question.reason


@pytest.mark.parametrize("selector", [Uncertainty, Disagreement, ExpectedInformation, PredictiveInformation, Diversity])
def test_keep_the_contract(selector, rlhf_conformance):
    rlhf_conformance(selector)


def test_each_asks_where_its_measure_is_highest():
    assert first(Uncertainty)[0] == "wide"
    assert first(Disagreement) == ("split", "disagreement: 1 of 3 members prefer one, the others the other")
    assert first(ExpectedInformation)[0] == "split"


def test_measures_by_hand():
    pairs, differences = scored_pairs(ALL, Members())
    of = {pair.candidate.prompt.text: row for pair, row in zip(pairs, differences, strict=True)}
    assert of["wide"] == pytest.approx([-1, -30, -1])

    def spread(selector, name):
        (value,) = selector().spread(of[name][None])
        return value

    assert spread(Uncertainty, "wide") == pytest.approx(np.std([-1, -30, -1]))
    assert spread(Disagreement, "split") == pytest.approx(entropy(1 / 3), abs=1e-3)
    p = [1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))]
    # Mutual information of member and answer, from the joint table.
    joint = np.array([[q / 3, (1 - q) / 3] for q in p])
    expected = mutual_info_score(None, None, contingency=joint * 1e6)
    assert spread(ExpectedInformation, "split") == pytest.approx(expected, abs=1e-4)
    assert spread(ExpectedInformation, "tied") < 1e-5


def test_information_about_other_pairs_by_hand():
    """Two linear opinions: the deviations are the square root of a covariance that is known."""
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    covariance, noise = x @ x.T, np.array([4.0, 4.0, 4.0])
    values = predictive_information(covariance[:, [0]], np.diag(covariance) + noise, np.array([5.0]))
    # Correlation of the answers about equal pairs: 1 / 5. The third has nothing to do with the target.
    assert values == pytest.approx([-0.5 * math.log(1 - 1 / 25)] * 2 + [0])
    left = after(x, noise, 0)
    k = covariance[:, [0]]
    assert left @ left.T == pytest.approx(covariance - k @ k.T / (1 + 4))
    assert after(np.zeros((3, 2)), noise, 0) == pytest.approx(0)


def test_beliefs_are_covariance_and_fisher_information():
    differences = np.random.default_rng(0).normal(size=(5, 40)) + np.array([[0], [1], [-2], [0.5], [30]])
    deviations, noise = beliefs(differences)
    assert deviations @ deviations.T == pytest.approx(np.cov(differences))
    p = 1 / (1 + np.exp(-differences.mean(axis=1)))
    assert noise[:4] == pytest.approx(1 / (p * (1 - p))[:4])
    assert np.isfinite(noise).all()


class Linear(RewardModel):
    """A committee of 400 with independent opinions of each word; `rare` ones vary most."""

    def score(self, prompts, samples):
        names = sorted({word for s in samples for word in s.text.split()})
        rng = np.random.default_rng(0)
        opinions = {name: rng.normal(size=400) * (5 if name.startswith("rare") else 1) for name in names}
        table = np.array([sum(opinions[word] for word in s.text.split()) for s in samples]).T
        return Scores(table.mean(0).tolist(), table.std(0).tolist(), members=table.tolist())


def test_what_is_asked_helps_with_ordinary_pairs():
    common = [candidate(f"common {i}", f"plain {i}", f"plain {i} loud") for i in range(60)]
    rare = [candidate("odd", "plain", "plain rare")]
    assert first(Uncertainty, [*common, *rare], Linear())[0].startswith("odd")
    prompt, reason = first(PredictiveInformation, [*common, *rare], Linear())
    assert prompt.startswith("common")
    assert "other pairs" in reason


def test_no_two_questions_ask_for_the_same():
    """Of two common differences the more common one comes first, and then the other: not the first one again."""
    candidates = [candidate(f"loud {i}", f"plain {i}", f"plain {i} loud") for i in range(30)]
    candidates += [candidate(f"long {i}", f"plain {i}", f"plain {i} long") for i in range(25)]
    questions = PredictiveInformation(control=0.0).select(candidates, 10, Linear())
    asked = Counter(q.prompt.text.split()[0] for q in questions)
    assert min(asked["loud"], asked["long"]) >= 4
    assert len({q.prompt.id for q in questions}) == 10


def test_few_members_are_told_about():
    notes = []
    run = Run()
    run.note = notes.append
    assert len(PredictiveInformation(control=0.0, run=run).select(ALL, 9, Members())) == 4
    assert "mostly chance" in notes[0]


def test_the_best_pair_of_a_prompt_is_asked_about():
    many = candidate("many", "0/0/0", "1/1/1", "5/-5/0")
    (question,) = Uncertainty(control=0.0).select([many], 1, Members())
    # Both pairs with the third sample vary by as much; the one that comes first is taken.
    assert {sample.text for sample in question.samples} == {"0/0/0", "5/-5/0"}


def test_one_member_asks_about_what_is_close():
    notes = []
    run = Run()
    run.note = notes.append
    (question,) = Uncertainty(control=0.0, run=run).select([SURE, TIED, SPLIT], 1, Alone())
    assert question.prompt.text != "sure"
    assert "no members" in notes[0]


def crowd(n, split="train"):
    return [candidate(f"{split} {i}", f"0/{i}/0", f"1/{-i}/2", split=split) for i in range(n)]


def test_a_control_arm_is_drawn_by_lot():
    questions = Uncertainty(control=0.25).select(crowd(100), 40, Members())
    assert Counter(q.reason == CONTROL for q in questions) == {True: 10, False: 30}
    assert len({q.prompt.id for q in questions}) == 40
    asked = [int(q.prompt.text.split()[1]) for q in questions if q.reason != CONTROL]
    drawn = [int(q.prompt.text.split()[1]) for q in questions if q.reason == CONTROL]
    assert min(asked) > 50
    assert np.mean(drawn) < 70
    # The arms are mixed, and nobody sees which is which by the order.
    reasons = [q.reason == CONTROL for q in questions]
    assert reasons != sorted(reasons) and reasons != sorted(reasons, reverse=True)


def test_held_out_prompts_are_asked_about_by_lot():
    everyone = [*crowd(60), *crowd(20, "test"), *crowd(20, "validation")]
    questions = Uncertainty().select(everyone, 50, Members())
    held_out = [q for q in questions if not q.prompt.text.startswith("train")]
    assert len(held_out) == 20
    assert {q.reason for q in held_out} == {CONTROL}


def test_before_there_is_a_reward_model_everything_is_drawn():
    questions = Uncertainty().select(crowd(30), 10, None)
    assert len(questions) == 10 and {q.reason for q in questions} == {CONTROL}


def test_prompts_whose_samples_are_alike_leave_the_budget_to_others():
    twins = [candidate(f"train twin {i}", "1/1/1", "1/1/1") for i in range(20)]
    questions = Uncertainty(control=0.0).select([*crowd(5), *twins], 20, Members())
    assert len(questions) == 5


def test_diversity_covers_the_differences():
    kinds = {"length": "very very long long", "shouting": "WOW amazing stop", "place": "in Berlin at night"}
    candidates = [
        candidate(f"train {name} {i}", f"the mayor said {i}", f"the mayor said {i} {words}")
        for name, words in kinds.items()
        for i in range(6)
    ]
    pairs, differences = scored_pairs(candidates, Silent())
    questions = Diversity().best(pairs, differences, 3)
    assert {choice.pair.candidate.prompt.text.split()[1] for choice in questions} == set(kinds)
    # Each is the farthest from those before it, so the distances fall.
    distances = [float(choice.why.split()[1]) for choice in questions[1:]]
    assert distances == sorted(distances, reverse=True)
    assert len(Diversity().best(pairs, differences, 99)) == len(candidates)


class Silent(RewardModel):
    def score(self, prompts, samples):
        return Scores([0.0] * len(samples))
