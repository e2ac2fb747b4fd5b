"""What a judge of newsroom headlines knows: how headlines are built.

The judge itself is the list of principles `newsroom` (see `rlhf_plugins.values`), which uses it.
"""

from __future__ import annotations

import math
import re
from functools import cache

from rlhf_core import Prompt, Sample
from rlhf_plugins.newsroom.language import SLOTS
from rlhf_plugins.newsroom.languages import languages, vocabulary
from rlhf_plugins.values.checks import Positive, check, text_of
from rlhf_plugins.values.words import words

START, END = "<start>", "<end>"


def shape(headline: str) -> list[str]:
    """The headline's words with each fact replaced by its name: `Ashford zoo delays rent cap` is place who action what.

    What stands for a fact is written `<fact>`; words are in lower case.
    """
    text = words(headline)
    shaped: list[str] = []
    position = 0
    for hit in vocabulary().statements(headline):
        shaped += [*text[position : hit.start], f"<{hit.meaning.fact}>"]
        position = hit.end
    return [*shaped, *text[position:]]


@cache
def known_pairs(language: str) -> frozenset[tuple[str, str]]:
    """Every pair of neighbours in the shapes of a language's headline templates, with their start and end."""
    pairs: set[tuple[str, str]] = set()
    for templates in languages()[language].headlines.values():
        for template in templates:
            pieces = re.split(r"\{(\w+)\}", template)
            shaped = [
                part
                for place, piece in enumerate(pieces)
                for part in ([f"<{SLOTS[piece.lower()]}>"] if place % 2 else words(piece))
            ]
            pairs.update(zip([START, *shaped], [*shaped, END], strict=True))
    return frozenset(pairs)


@check
def headline_grammar(prompt: Prompt, sample: Sample, *, power: Positive = 3) -> float:
    """The share of neighbouring words that headlines of the article's language have, in any style, to the `power`.

    Start and end count as words; a fact counts as a fact whether true or false. A heap of facts, a fragment and garbage
    score low.
    """
    shaped = shape(text_of(sample))
    if not shaped:
        return 0.0
    known = known_pairs(str(prompt.facts.get("language", "en")))
    pairs = list(zip([START, *shaped], [*shaped, END], strict=True))
    return math.pow(sum(pair in known for pair in pairs) / len(pairs), power)
