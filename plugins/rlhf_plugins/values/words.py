"""Text as words, in any script, and fast look-up of many phrases at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

Meaning = TypeVar("Meaning")
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+(?:'[^\W_]+)?|[^\w\s]|_")


@lru_cache(maxsize=1024)
def words(text: str) -> tuple[str, ...]:
    """Words, Chinese characters and punctuation marks, one an entry, in lower case."""
    return tuple(_WORD.findall(text.replace("’", "'").lower()))


def is_chinese(word: str) -> bool:
    """Whether `word`, as made by `words`, is a Chinese character."""
    return len(word) == 1 and "\u4e00" <= word <= "\u9fff"


def word_count(text: str) -> float:
    """Length in words; punctuation does not count and a Chinese character is half a word."""
    return sum(0.5 if is_chinese(word) else 1.0 for word in words(text) if word[0].isalnum())


class Hit(NamedTuple, Generic[Meaning]):
    """A phrase found at `words[start:end]`."""

    start: int
    end: int
    meaning: Meaning


class Phrases(Generic[Meaning]):
    """Finds phrases in a text: whole words, any case, the longest where several start at one place."""

    def __init__(self, phrases: Mapping[str, Meaning]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], Meaning]]] = {}
        for phrase, meaning in phrases.items():
            parts = words(phrase)
            if not parts:
                raise ValueError(f"{phrase!r} has no words to look for")
            self._by_first.setdefault(parts[0], []).append((parts, meaning))
        for candidates in self._by_first.values():
            candidates.sort(key=lambda candidate: -len(candidate[0]))

    def find(self, text: Sequence[str]) -> list[Hit[Meaning]]:
        """All hits in `text` (as made by `words`), left to right, none overlapping."""
        hits = []
        position = 0
        while position < len(text):
            for parts, meaning in self._by_first.get(text[position], ()):
                end = position + len(parts)
                if tuple(text[position:end]) == parts:
                    hits.append(Hit(position, end, meaning))
                    position = end
                    break
            else:
                position += 1
        return hits
