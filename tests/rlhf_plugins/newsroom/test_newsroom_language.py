"""The vocabularies: what a judge must be able to rely on."""

import itertools
import re

import pytest

from rlhf_plugins.newsroom.judge import shape
from rlhf_plugins.newsroom.language import SLOTS
from rlhf_plugins.newsroom.languages import languages, vocabulary
from rlhf_plugins.values.words import words


@pytest.fixture(params=["en", "zh"])
def language(request):
    return languages()[request.param]


def test_no_phrase_for_a_fact_occurs_inside_one_for_another(language):
    forms = [
        (fact, value, words(form))
        for fact, values in language.values().items()
        for value, spellings in values.items()
        for form in spellings
    ]
    for (fact, value, inner), (other_fact, other_value, outer) in itertools.permutations(forms, 2):
        if (fact, value) == (other_fact, other_value):
            continue
        windows = (outer[start : start + len(inner)] for start in range(len(outer) - len(inner) + 1))
        assert inner not in windows, f"{value} in {other_value}"


def test_values_are_distinct(language):
    for values in (language.places, language.bodies, language.measures, language.costs, language.days):
        assert len(set(values)) == len(values)
    assert not set(language.supporters) & set(language.critics)


def test_headline_templates_use_only_slots_that_state_facts(language):
    for template in itertools.chain(*language.headlines.values(), language.references):
        slots = re.findall(r"\{(\w+)\}", template)
        assert slots
        assert {slot.lower() for slot in slots} <= set(SLOTS)


def test_there_are_thousands_of_combinations(language):
    decisions = len(language.places) * len(language.bodies) * len(language.measures) * len(language.actions)
    assert decisions > 100_000
    assert all(len(templates) >= 12 for templates in language.headlines.values())


def test_shape_names_facts_and_keeps_other_words():
    assert shape("Ashford zoo delays 12 million dollar rent cap") == [
        "<place>", "<who>", "<action>", "<cost>", "dollar", "<what>",
    ]  # fmt: skip
    assert shape("青山动物园推迟租金上限") == ["<place>", "<who>", "<action>", "<what>"]
    assert shape("") == []


def test_the_longest_phrase_wins():
    hits = vocabulary().statements("the dog park and the bike lane")
    assert [hit.meaning.value for hit in hits] == ["dog park", "bike lane"]
