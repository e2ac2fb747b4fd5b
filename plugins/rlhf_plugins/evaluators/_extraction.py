"""How a summary is made of its source: pure functions of their words."""

from __future__ import annotations

from collections.abc import Sequence

Words = Sequence[str]


def fragments(source: Words, summary: Words) -> list[int]:
    """Lengths of the extractive fragments of `summary`: from left to right, the longest run of words that the source
    has too (Grusky et al. 2018, "Newsroom", figure 2). Words that the source does not have are in none.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(source):
        places.setdefault(word, []).append(place)
    found, at = [], 0
    while at < len(summary):
        length = max((_common(source, place, summary, at) for place in places.get(summary[at], ())), default=0)
        found += [length] if length else []
        at += max(length, 1)
    return found


def coverage(source: Words, summary: Words) -> float:
    """Share of the summary's words that are in a fragment: 1 / |S| * sum of |f| (equation 1)."""
    return sum(fragments(source, summary)) / len(summary) if summary else 0.0


def density(source: Words, summary: Words) -> float:
    """Length of the fragment that the average word is in: 1 / |S| * sum of |f|^2 (equation 2)."""
    return sum(length**2 for length in fragments(source, summary)) / len(summary) if summary else 0.0


def novelty(source: Words, summary: Words, n: int = 2) -> float:
    """Share of the summary's n-grams that the source does not have (See et al. 2017, section 6.2); 0 without any."""
    known = set(zip(*(source[i:] for i in range(n)), strict=False))
    said = list(zip(*(summary[i:] for i in range(n)), strict=False))
    return sum(gram not in known for gram in said) / len(said) if said else 0.0


def new_numbers(source: Words, summary: Words) -> int:
    """How many different words with a digit the summary has and the source does not: figures that are made up."""
    return len({word for word in summary if any(map(str.isdigit, word))} - set(source))


def _common(source: Words, i: int, summary: Words, j: int) -> int:
    """Length of the run that starts at both places."""
    length = 0
    while i + length < len(source) and j + length < len(summary) and source[i + length] == summary[j + length]:
        length += 1
    return length
