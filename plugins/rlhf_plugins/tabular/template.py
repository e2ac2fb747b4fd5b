"""A prompt written with {column} fields, which are looked up, never evaluated: a template cannot reach into objects."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import NamedTuple


class Template(NamedTuple):
    """Literal text and column names in turn."""

    pieces: tuple[tuple[str, str | None], ...]
    """(literal, column after it or None)."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, each once."""
        return tuple(dict.fromkeys(column for _, column in self.pieces if column is not None))

    def fill(self, cell: Callable[[str], str]) -> str:
        """The text with every field replaced by `cell(column)`, which is taken literally."""
        return "".join(literal + ("" if column is None else cell(column)) for literal, column in self.pieces)


def parse_template(text: str) -> Template:
    """Read a template; `{{` and `}}` are braces. Raises ValueError for anything but plain {column} fields."""
    pieces = []
    for literal, field, spec, conversion in string.Formatter().parse(text):
        if field is not None and (not field or spec or conversion or any(sign in field for sign in ".[]")):
            shown = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(f"only plain column names may stand in braces, not {{{shown}}}; a brace is {{{{ or }}}}")
        pieces.append((literal, field))
    return Template(tuple(pieces))
