"""The annotator `principles`: its answers follow from the list, and say so."""

import pytest

from rlhf_core import Comparison, Prompt, Question, Ranking, Sample, Skip
from rlhf_plugins.annotators.principles import Principles

PROMPT = Prompt(text="p")
OWN = {
    "name": "own",
    "version": "3",
    "principles": [
        {"name": "calm", "weight": 2, "checks": [{"check": "lexicon_absent", "words": ["!"], "each": 0.5}]},
        {"name": "short", "weight": 1, "checks": [{"check": "length_between", "maximum": 2, "softness": 1}]},
    ],
}


def question(*texts: str, wanted: int = 1) -> Question:
    samples = tuple(Sample(prompt_id=PROMPT.id, text=text) for text in texts)
    return Question(prompt=PROMPT, samples=samples, wanted=wanted)


def test_two_samples_are_compared_with_the_difference_in_each_principle():
    (answer,) = Principles(list=OWN).annotate([question("wow!", "two words", wanted=3)])
    assert isinstance(answer, Comparison)
    assert answer.choice == "second"
    assert answer.reasons == {"calm": 0.5, "short": 0.0}
    assert answer.source == "program"
    assert answer.comment.startswith("own version 3 (")


def test_a_small_difference_ties():
    asked = question("wow!", "two words")
    (answer,) = Principles(list=OWN, tie_below=1.0).annotate([asked])
    assert answer.choice == "tie"
    (answer,) = Principles(list=OWN, tie_below=0.99).annotate([asked])
    assert answer.choice == "second"


def test_more_samples_are_ranked():
    (answer,) = Principles(list=OWN).annotate([question("no! no! no!", "calm", "wow!", "calm too")])
    assert isinstance(answer, Ranking)
    assert answer.ranks == (4, 1, 3, 1)
    # The best is fully calm; the others are 1/8, 1/2 and 1.
    assert answer.reasons["calm"] == pytest.approx(1 - (1 / 8 + 1 / 2 + 1) / 3)


def test_weights_change_the_order():
    asked = question("fine!", "a rather long one")
    (calm_wins,) = Principles(list=OWN, weights={"short": 0.1}).annotate([asked])
    (short_wins,) = Principles(list=OWN, weights={"short": 10}).annotate([asked])
    assert (calm_wins.choice, short_wins.choice) == ("second", "first")


def test_nothing_to_compare_is_skipped():
    assert all(isinstance(answer, Skip) for answer in Principles(list=OWN).annotate([question(), question("one")]))
