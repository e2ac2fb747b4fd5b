from itertools import product

import pytest

from rlhf_core.feedback.aggregate import agreement, nominal_alpha, pairwise_agreement, preference_labels, soft_label
from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample


def krippendorffs_units():
    """The example of "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, gaps."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    return [[row[unit] for row in observers if row[unit] != "."] for unit in range(12)]


def test_alpha_of_krippendorffs_example():
    assert nominal_alpha(krippendorffs_units()) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_krippendorffs_binary_example():
    # Section A: two observers, ten units; o_01 = 4, n_0 = 14, n_1 = 6: alpha = 1 - 19 * 4 / (14 * 6) = 0.095.
    a, b = "0100000000", "1110010100"
    assert nominal_alpha(list(zip(a, b, strict=True))) == pytest.approx(1 - 19 * 4 / (14 * 6))


def test_alpha_where_it_says_nothing():
    assert nominal_alpha([["a"], ["b"]]) is None
    assert nominal_alpha([["a", "a"], ["a", "a"]]) is None
    assert nominal_alpha([["a", "a"], ["b", "b"]]) == 1.0


def test_pairwise_agreement():
    # aab: 1 of 3 pairs agree; bb: 1 of 1; a single label has no pair.
    assert pairwise_agreement(["aab", "bb", "c"]) == pytest.approx(2 / 4)
    assert pairwise_agreement(["a"]) is None


def test_soft_label_does_not_depend_on_the_order():
    values = [0.1] * 10 + [0.7, 1.0, 1e-17]
    assert soft_label(values) == soft_label(values[::-1])
    assert soft_label([1.0, 0.0, 0.5, 1.0]) == (0.625, 4.0)


def test_labels_mean_the_same_whatever_order_the_samples_were_shown_in():
    prompt = Prompt(text="p")
    a, b = (Sample(prompt_id=prompt.id, text=text) for text in "ab")
    answers = []
    for number, (first, second) in enumerate([(a, b), (b, a)]):
        question = Question(prompt=prompt, samples=(first, second))
        choice = "first" if first is a else "second"
        fields = {"question_id": question.id, "first": first.id, "second": second.id, "choice": choice}
        answers.append(Answer(question=question, feedback=Comparison(annotator=f"r{number}", **fields)))
    (labels,) = preference_labels(answers).values()
    assert labels == ["lower" if a.id < b.id else "higher"] * 2


def test_agreement_of_a_panel():
    answers = []
    for number, (one, two) in enumerate(product(["first", "second"], repeat=2)):
        prompt = Prompt(text=f"p{number}")
        samples = tuple(sorted((Sample(prompt_id=prompt.id, text=t) for t in "ab"), key=lambda sample: sample.id))
        question = Question(prompt=prompt, samples=samples)
        for annotator, choice in (("x", one), ("y", two)):
            fields = {"question_id": question.id, "first": samples[0].id, "second": samples[1].id, "choice": choice}
            answers.append(Answer(question=question, feedback=Comparison(annotator=annotator, **fields)))
    found = agreement(answers)
    assert (found["annotator_agreement"].value, found["annotator_agreement"].n) == (0.5, 4)
    # Half of the pairs agree, as by chance; alpha's small-sample correction adds a little: 1 - 7 * 4 / (2 * 4 * 4).
    assert found["krippendorff_alpha"].value == pytest.approx(1 - 7 * 4 / 32)
    assert agreement(answers[:1]) == {}
