"""Lines of a terminal: letters with a style, folded by the columns that they take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

DIM = "dim"
"""Style of what stands back: lines, what comes from outside, remarks."""


class Span(NamedTuple):
    """Letters in one style, in rich's words."""

    text: str
    style: str = ""


Line = tuple[Span, ...]
"""One line of the terminal."""


def width_of(line: Iterable[Span]) -> int:
    """Columns that the line takes on a terminal."""
    return sum(cell_len(span.text) for span in line)


def wrapped(text: str, width: int, style: str = "", indent: int = 2) -> list[Line]:
    """The text in lines of at most `width` columns, from the second on indented. Hard spaces hold together."""
    indent = min(indent, width // 2)
    room = max(width - indent, 2)
    lines = [""]
    for word in text.split(" "):
        for i, piece in enumerate([word] if cell_len(word) <= room else chop_cells(word, room)):
            gap = " " if i == 0 and lines[-1] else ""
            if cell_len(lines[-1] + gap + piece) <= width:
                lines[-1] += gap + piece
            else:
                lines.append(" " * indent + piece)
    return [(Span(line.rstrip().replace("\N{NO-BREAK SPACE}", " "), style),) for line in lines if line.strip()]
