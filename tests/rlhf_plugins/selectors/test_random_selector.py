"""The random selector: distinct, deterministic, without order."""

from collections import Counter
from itertools import combinations
from math import comb

import pytest

from rlhf_core import Candidate, Prompt, Run, Sample
from rlhf_core.records import distinct
from rlhf_plugins.selectors.random import Random, combination, passes_needed


def candidates(count: int, samples: int, policy: str = "p") -> list[Candidate]:
    made = []
    for number in range(count):
        prompt = Prompt(text=f"prompt {number}")
        texts = [Sample(prompt_id=prompt.id, text=f"text {n}", policy=policy) for n in range(samples)]
        made.append(Candidate(prompt, texts))
    return made


def sets(questions) -> list[tuple[str, frozenset[str]]]:
    return [(q.prompt.id, frozenset(sample.text for sample in q.samples)) for q in questions]


def test_combinations_by_rank():
    assert [combination(5, 3, rank) for rank in range(comb(5, 3))] == list(combinations(range(5), 3))


def test_passes_needed():
    assert passes_needed([1, 3, 6], 3) == 1
    assert passes_needed([1, 3, 6], 5) == 2
    assert passes_needed([1, 3, 6], 100) == 6
    assert passes_needed([], 10) == 1


def test_one_question_a_prompt_where_there_are_enough_prompts():
    questions = Random().select(candidates(50, 4), 20, None)
    assert len(questions) == len({question.prompt.id for question in questions}) == 20
    assert all(len(question.samples) == 2 and question.reason == "random" for question in questions)
    assert all(question.samples[0].text != question.samples[1].text for question in questions)


def test_a_larger_budget_asks_again_about_other_pairs():
    questions = Random().select(candidates(10, 4), 35, None)
    assert len(questions) == 35
    assert len(set(sets(questions))) == 35
    assert set(Counter(question.prompt.id for question in questions).values()) == {3, 4}


def test_every_pair_once_when_the_budget_is_larger_than_all_pairs():
    questions = Random().select(candidates(5, 4), 1000, None)
    assert len(questions) == len(set(sets(questions))) == 5 * comb(4, 2)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_width(width):
    questions = Random(width=width).select(candidates(10, 4), 10, None)
    assert {len(question.samples) for question in questions} == {width}


def test_with_fewer_different_samples_the_question_is_narrower():
    made = [*candidates(10, 4), *candidates(20, 3)[10:], *candidates(30, 2)[20:], *candidates(40, 1)[30:]]
    questions = Random(width=4).select(made, 40, None)
    assert Counter(len(question.samples) for question in questions) == {4: 10, 3: 10, 2: 10}
    assert len(set(sets(questions))) == 30


def test_candidates_that_always_say_the_same_are_passed_over():
    prompt = Prompt(text="p")
    twins = [Sample(prompt_id=prompt.id, text="same", policy=policy) for policy in "ab"]
    assert Random().select([Candidate(prompt, twins)], 5, None) == []
    assert Random().select([], 5, None) == []
    assert distinct(twins) == twins[:1]


def test_deterministic_and_different_by_seed_and_by_samples():
    one = Random(run=Run(seed=1)).select(candidates(50, 4), 20, None)
    again = Random(run=Run(seed=1)).select(candidates(50, 4), 20, None)
    other_seed = Random(run=Run(seed=2)).select(candidates(50, 4), 20, None)
    other_round = Random(run=Run(seed=1)).select(candidates(50, 4, policy="q"), 20, None)
    assert [q.id for q in one] == [q.id for q in again]
    assert sets(one) != sets(other_seed)
    assert sets(one) != sets(other_round)


def test_the_order_of_candidates_does_not_matter():
    made = candidates(50, 4)
    assert [q.id for q in Random().select(made, 20, None)] == [q.id for q in Random().select(made[::-1], 20, None)]


def test_prompts_pairs_and_order_are_drawn_evenly():
    questions = Random().select(candidates(1500, 3), 1500, None)
    first = Counter(question.samples[0].text for question in questions)
    pairs = Counter(frozenset(sample.text for sample in question.samples) for question in questions)
    # Four standard deviations of a binomial with n = 1500, p = 1/3 are 73.
    assert all(abs(count - 500) < 73 for count in [*first.values(), *pairs.values()])
    chosen = Random().select(candidates(1500, 3), 500, None)
    early = {candidate.prompt.id for candidate in candidates(750, 3)}
    assert abs(sum(question.prompt.id in early for question in chosen) - 250) < 4 * (500 / 4) ** 0.5
