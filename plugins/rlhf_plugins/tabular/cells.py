"""Single cells -> texts, numbers, splits. What a cell should not hold is a `BadCell` that says so."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any

from rlhf_core.records import Split

SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "eval": "test",
}  # fmt: skip
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class BadCell(ValueError):
    """What is wrong with a row, in words that follow its number."""


def text_of(value: Any, column: str) -> str:
    """The cell as text without blanks around it; an empty cell is ''."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, dict, tuple, bytes)):
        raise BadCell(f"`{column}` is not a text")
    text = str(value).strip()
    if _LONE_SURROGATE.search(text):
        raise BadCell(f"`{column}` is not valid text (half of a surrogate pair)")
    return text


def number_of(value: Any, column: str) -> float:
    """The cell as a finite number; true is 1 and false is 0."""
    words = {"true": "1", "false": "0"}
    text = text_of(value, column)
    if not text:
        raise BadCell(f"empty `{column}`")
    try:
        number = float(words.get(text.lower(), text))
    except (ValueError, OverflowError):
        raise BadCell(f"`{column}` is not a number: {shown(text)}") from None
    if not math.isfinite(number):
        raise BadCell(f"`{column}` is not a finite number: {shown(text)}")
    return number


def count_of(value: Any, column: str) -> int:
    """The cell as a whole number from 0."""
    number = number_of(value, column)
    if number < 0 or number != int(number):
        raise BadCell(f"`{column}` is not a count: {number:g}")
    return int(number)


def split_cell(value: Any, column: str) -> Split | None:
    """The split that the cell names; None where it is empty."""
    text = text_of(value, column)
    if text and text.lower() not in SPLITS:
        raise BadCell(f"`{column}` is not a split (train, validation or test): {shown(text)}")
    return SPLITS.get(text.lower())


def shown(text: str) -> str:
    """A cell's content for an error: quoted, short, on one line."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def cut(text: str, characters: int | None) -> str:
    """`text` cut at the last word end (or, in scripts without spaces, the last character) that fits."""
    if characters is None or len(text) <= characters:
        return text
    head = text[:characters]
    words = head if text[characters].isspace() else head.rpartition(" ")[0] or head
    return words.rstrip()


@lru_cache(maxsize=256)
def strip_html(text: str) -> str:
    """The text that a browser would show, on one line: no tags, scripts, styles or entities.

    Remembers the last few: the rows of a group tend to repeat one article.
    """
    if "<" not in text and "&" not in text:
        return " ".join(text.split())
    reader = _TextOnly()
    reader.feed(text)
    reader.close()
    return " ".join("".join(reader.parts).split())


class _TextOnly(HTMLParser):
    inline = frozenset(("a", "abbr", "b", "cite", "code", "em", "font", "i", "mark", "small", "span", "strong", "u"))
    silent = frozenset(("script", "style"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in self.silent
        if tag not in self.inline:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in self.silent))
        if tag not in self.inline:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)
