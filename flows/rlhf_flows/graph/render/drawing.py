"""A layout drawn with letters and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from rlhf_flows.graph.render.buses import Bus
from rlhf_flows.graph.render.layout import Item, Layout
from rlhf_flows.graph.render.lines import DIM, Line, Span, width_of

Labels = Mapping[str, Sequence[Span]]
"""What is written for each vertex."""

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
_CORNERS = {
    UP | DOWN: "│", LEFT | RIGHT: "─", DOWN | RIGHT: "┌", DOWN | LEFT: "┐", UP | RIGHT: "└", UP | LEFT: "┘",
    UP | DOWN | RIGHT: "├", UP | DOWN | LEFT: "┤", DOWN | LEFT | RIGHT: "┬", UP | LEFT | RIGHT: "┴",
    UP | DOWN | LEFT | RIGHT: "┼",
}  # fmt: skip


def draw(layout: Layout, labels: Labels) -> list[Line]:
    """The lines of the drawing."""
    canvas = _Canvas()
    left = 0
    for i, layer in enumerate(layout.layers):
        right = left + max((width_of(labels[item.name]) for item in layer if not _passes(item, layout, i)), default=0)
        between = layout.buses[i] if i < len(layout.buses) else ()
        ends: dict[Item, int] = {}
        for item in layer:
            if _passes(item, layout, i):
                canvas.horizontal(layout.rows[item], left - 1, right + 1)
                ends[item] = right + 1
            else:
                canvas.write(layout.rows[item], left, labels[item.name])
                ends[item] = left + width_of(labels[item.name]) + 1
        if i == len(layout.buses):
            break
        depth = max((bus.depth + 1 for bus in between if len(_span(bus, layout, i)) > 1), default=0)
        next_left = right + 3 + 2 * depth
        for bus in sorted(between, key=lambda each: each.depth):
            _draw_bus(canvas, bus, layout, i, ends, right + 2 + 2 * bus.depth, next_left - 1)
        left = next_left
    return canvas.lines()


def _passes(item: Item, layout: Layout, i: int) -> bool:
    """Whether the item is a line on its way, and not the vertex itself."""
    return i > 0 and any(item.name == before.name for before in layout.layers[i - 1])


def _span(bus: Bus, layout: Layout, i: int) -> range:
    rows = [layout.rows[layout.layers[i][place]] for place in bus.givers]
    rows += [layout.rows[layout.layers[i + 1][place]] for place in bus.takers]
    return range(min(rows), max(rows) + 1)


def _draw_bus(
    canvas: _Canvas, bus: Bus, layout: Layout, i: int, ends: Mapping[Item, int], column: int, right: int
) -> None:
    span = _span(bus, layout, i)
    takers = {layout.rows[layout.layers[i + 1][place]] for place in bus.takers}
    for place in bus.givers:
        item = layout.layers[i][place]
        canvas.horizontal(layout.rows[item], ends[item], right if len(span) == 1 else column)
    if len(span) == 1:
        return
    givers = {layout.rows[layout.layers[i][place]] for place in bus.givers}
    for row in span:
        signs = (UP if row > span[0] else 0) | (DOWN if row < span[-1] else 0)
        signs |= LEFT if row in givers or canvas.is_line(row, column - 1) else 0
        signs |= RIGHT if row in takers else 0
        canvas.write(row, column, [Span(_CORNERS[signs], DIM)])
        if row in takers:
            canvas.horizontal(row, column + 1, right)


class _Canvas:
    """Cells by row and column."""

    def __init__(self) -> None:
        self._cells: dict[int, dict[int, Span]] = {}

    def write(self, row: int, column: int, text: Sequence[Span]) -> None:
        """Put letters into a row."""
        cells = self._cells.setdefault(row, {})
        for span in text:
            for char in span.text:
                cells[column] = Span(char, span.style)
                column += cell_len(char)

    def horizontal(self, row: int, start: int, stop: int) -> None:
        """A line from `start` to before `stop`."""
        self.write(row, start, [Span("─" * (stop - start), DIM)])

    def is_line(self, row: int, column: int) -> bool:
        return self._cells.get(row, {}).get(column, Span("")).text == "─"

    def lines(self) -> list[Line]:
        """All rows, letters of one style together."""
        result: list[Line] = []
        for row in range(max(self._cells, default=-1) + 1):
            spans: list[Span] = []
            reached = 0
            for column, cell in sorted(self._cells.get(row, {}).items()):
                for piece in (Span(" " * (column - reached)), cell):
                    if spans and spans[-1].style == piece.style:
                        spans[-1] = Span(spans[-1].text + piece.text, piece.style)
                    elif piece.text:
                        spans.append(piece)
                reached = column + cell_len(cell.text)
            result.append(tuple(spans))
        return result
