"""Which facts a text states, and whether they are those of the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from rlhf_core import Prompt
from rlhf_plugins.values.words import Hit, Phrases, words

Forms = Mapping[str, Mapping[str, Iterable[str]]]
"""Fact -> value -> the phrases that state it."""


class Statement(NamedTuple):
    """A text says that `fact` is `value`."""

    fact: str
    value: str


class Vocabulary:
    """All values that facts can have, so that a wrong one is noticed and not just missed."""

    def __init__(self, forms: Forms) -> None:
        phrases = {
            form: Statement(fact, value)
            for fact, values in forms.items()
            for value, spellings in values.items()
            for form in spellings
        }
        self._phrases = Phrases(phrases)

    @lru_cache(maxsize=1024)  # noqa: B019  a judge asks several times about one text, and vocabularies are few
    def statements(self, text: str) -> tuple[Hit[Statement], ...]:
        """What `text` says, with its places in `words(text)`."""
        return tuple(self._phrases.find(words(text)))


class Reading(NamedTuple):
    """What a text states, held against what its prompt knows."""

    agreed: frozenset[str]
    """Names of the facts stated as they are."""
    contradicted: int
    """How many different statements are wrong; a number that stands in no fact is one."""


def read(text: str, prompt: Prompt, vocabulary: Vocabulary | None) -> Reading:
    """The statements of `text` about the facts of `prompt`.

    Without a vocabulary only the prompt's own values are known, and only wrong numbers can be noticed.
    """
    known = {name: _values(value) for name, value in prompt.facts.items()}
    if vocabulary is None:
        vocabulary = Vocabulary({name: {value: [value] for value in values} for name, values in known.items()})
    text_words = words(text)
    hits = vocabulary.statements(text)
    statements = dict.fromkeys(hit.meaning for hit in hits if hit.meaning.fact in known)
    agreed = frozenset(fact for fact, value in statements if value in known[fact])
    wrong = sum(value not in known[fact] for fact, value in statements)

    covered = {place for hit in hits for place in range(hit.start, hit.end)}
    loose = {word for place, word in enumerate(text_words) if word[0].isdigit() and place not in covered}
    if loose:
        loose -= {word for values in known.values() for value in values for word in words(value)}
    return Reading(agreed, wrong + len(loose))


def _values(value: object) -> tuple[str, ...]:
    """A fact's accepted values: one, or any of a list."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
