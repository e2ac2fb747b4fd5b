"""A graph drawn for a terminal: from left to right, in bands where it is too wide, as a list where even those are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from rlhf_flows.graph.render.bands import in_bands
from rlhf_flows.graph.render.lines import DIM, Line, Span, width_of, wrapped
from rlhf_flows.graph.render.listing import listed
from rlhf_flows.graph.render.looks import LOOKS
from rlhf_flows.graph.render.safe import shown
from rlhf_flows.graph.render.shape import Shape, shape_of
from rlhf_flows.graph.states import NodeState, by_round

if TYPE_CHECKING:
    from rich.text import Text

NARROW = 72
"""Columns that the heading takes above a narrower drawing."""


def to_text(states: Sequence[NodeState], title: str, width: int) -> str:
    """The drawing as plain text of at most `width` columns, with a heading, and below it what runs again and why."""
    return "\n".join("".join(span.text for span in line).rstrip() for line in _lines(states, title, width)) + "\n"


def to_rich(states: Sequence[NodeState], title: str, width: int) -> Text:
    """The same in colours. Names are text: no markup in them is interpreted."""
    from rich.text import Text

    return Text("\n").join(Text.assemble(*line) for line in _lines(states, title, width))


def _lines(states: Sequence[NodeState], title: str, width: int) -> list[Line]:
    rounds = by_round(states)
    shapes = {number: shape_of(members) for number, members in rounds.items()}
    bodies: list[Line] = []
    references = 0
    for number, shape in shapes.items():
        if len(rounds) > 1:
            bodies += [(), (Span(f"round {number}", "bold"),)]
        drawn = in_bands(shape, width)
        bodies += listed(shape, width) if drawn is None else drawn.lines
        references += 0 if drawn is None else drawn.references
    heading = _heading(states, title, width, max(map(width_of, bodies), default=0))
    return [*heading, *bodies, *_notes(list(shapes.values()), references, width)]


def _heading(states: Sequence[NodeState], title: str, width: int, drawn: int) -> list[Line]:
    """The title, and what the marks mean."""
    present = {state.state for state in states}
    legend = [
        (Span(look.mark, look.style), Span(f" {look.words}", DIM)) for state, look in LOOKS.items() if state in present
    ]
    left = (Span(shown(title), "bold"),)
    gap = min(width, max(drawn, NARROW)) - width_of(left) - sum(width_of(each) + 3 for each in legend) + 3
    if gap >= 3:
        return [(*left, Span(" " * gap), *_joined(legend))]
    lines: list[list[Line]] = [[]]
    for each in legend:
        if lines[-1] and width_of(_joined([*lines[-1], each])) > width:
            lines.append([])
        lines[-1].append(each)
    return [*wrapped(shown(title), width, "bold"), *map(_joined, lines)]


def _joined(parts: Iterable[Line]) -> Line:
    return tuple(span for part in parts for span in (Span("   "), *part))[1:]


def _notes(shapes: Sequence[Shape], references: int, width: int) -> list[Line]:
    """What runs again and why, what is known, and what the drawing leaves out."""
    lines: list[Line] = []
    reasons: dict[str, list[str]] = {}
    known: list[tuple[str, str]] = []
    for vertex in (vertex for shape in shapes for vertex in shape.vertices.values()):
        if vertex.state is None:
            continue
        name = vertex.label if len(shapes) == 1 else f"{vertex.label} (round {vertex.state.node.round})"
        if why := shown(vertex.state.why):
            reasons.setdefault(why, []).append(name)
        if result := shown(vertex.state.result):
            known.append((name, result))
    for why, names in reasons.items():
        lines += wrapped(f"{', '.join(names)} run{'s' if len(names) == 1 else ''} again: {why}", width)
    column = min(max((cell_len(name) for name, _ in known), default=0) + 2, width // 2)
    for name, result in known:
        gap = " " * max(column - cell_len(name), 2)
        lines += wrapped(f"{name}{gap}{result}", width, DIM, column)
    if references:
        lines += wrapped("A name in parentheses stands for a stage that is drawn elsewhere.", width, DIM)
    if implied := [edge for shape in shapes for edge in shape.implied]:
        left_out = (
            "1 edge that a longer path implies is"
            if len(implied) == 1
            else f"{len(implied)} edges that longer paths imply are"
        )
        giver, taker = implied[0]
        lines += wrapped(f"{left_out} not drawn, such as {giver} → {taker}.", width, DIM)
    return [(), *lines] if lines else []
