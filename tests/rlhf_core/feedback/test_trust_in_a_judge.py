"""Agreement of a judge with people, counted by hand."""

import pytest

from rlhf_core.feedback.trust import majority, trust

PEOPLE = {
    ("a", "b"): {"ann": "lower", "ben": "lower", "cem": "higher"},
    ("c", "d"): {"ann": "higher"},
    ("e", "f"): {"ann": "tie", "ben": "lower"},
    ("g", "h"): {"ann": "lower", "ben": "higher"},  # no majority: does not count
}


def test_majorities():
    assert [majority(said) for said in PEOPLE.values()] == [1, -1, 1, 0]


def test_agreement_by_hand():
    found = trust({("a", "b"): "lower", ("c", "d"): "lower", ("e", "f"): "tie", ("g", "h"): "lower"}, PEOPLE)
    assert found.agreement.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.agreement.n == 3
    assert found.decided.value == pytest.approx(2 / 3)
    # a-b: ann and ben face one of each, which is no majority; cem faces two against: 0. e-f: ann's tie against
    # ben's side is a half, ben faces a tie, which is none. g-h: both contradict each other: 0.
    assert found.among_people.value == pytest.approx((0 + 0.5 + 0) / 3)


def test_no_answer_is_worth_a_guess():
    assert trust({}, PEOPLE).agreement.value == 0.5
    assert trust({}, PEOPLE).decided.value == 0


def test_without_a_majority_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="nothing to compare"):
        trust({}, {("g", "h"): PEOPLE["g", "h"]})
