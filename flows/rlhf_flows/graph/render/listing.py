"""A graph as a list, for terminals that are too narrow for a drawing."""

from __future__ import annotations

import re

from rlhf_flows.graph.render.labels import label_of
from rlhf_flows.graph.render.lines import DIM, Line, Span, width_of, wrapped
from rlhf_flows.graph.render.shape import Shape


def listed(shape: Shape, width: int) -> list[Line]:
    """One node below the other, each with those that it needs; those from outside last."""
    labels = {name: label_of(vertex) for name, vertex in shape.vertices.items() if vertex.state is not None}
    column = min(max(map(width_of, labels.values()), default=0) + 3, width // 2)
    lines: list[Line] = []
    for name, label in labels.items():
        needs = [shape.vertices[each] for each in shape.needs[name]]
        own = ", ".join(each.label for each in needs if each.state is not None)
        # Brackets hold together, so that a line never begins in the middle of "(round 1)".
        outside = [re.sub(r" (?=[^()]*\))", "\N{NO-BREAK SPACE}", each.label) for each in needs if not each.state]
        given = "; ".join(filter(None, [own, *outside]))
        beside = width_of(label) < column
        said = wrapped(f"from: {given}", width - column, DIM) if given else []
        if beside and said:
            label = [*label, Span(" " * (column - width_of(label))), *said.pop(0)]
        own_lines = [tuple(label)] if width_of(label) <= width else wrapped("".join(span.text for span in label), width)
        lines += [*own_lines, *((Span(" " * column), *line) for line in said)]
    return lines
