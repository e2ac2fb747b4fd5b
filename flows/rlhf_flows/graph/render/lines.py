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
    lines = [""]
    start = ""
    for word in text.split(" "):
        room = width - len(start)
        pieces = [word] if cell_len(word) <= room else chop_cells(word, max(room, 2))
        for i, piece in enumerate(pieces):
            if i == 0 and cell_len(lines[-1]) + bool(lines[-1]) + cell_len(piece) <= width:
                lines[-1] += (" " if lines[-1] != start else "") + piece
                continue
            start = " " * min(indent, width // 2)
            lines.append(start + piece)
    return [(Span(line.rstrip().replace("\N{NO-BREAK SPACE}", " "), style),) for line in lines if line.strip()]
