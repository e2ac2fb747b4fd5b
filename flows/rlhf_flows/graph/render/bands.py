"""A drawing in as few bands as the terminal's width allows."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from rlhf_flows.graph.render.drawing import draw
from rlhf_flows.graph.render.labels import label_of, reference_to
from rlhf_flows.graph.render.layout import lay_out, layers_of
from rlhf_flows.graph.render.lines import DIM, Line, Span, width_of
from rlhf_flows.graph.render.shape import Shape

PRICE = 4
"""References that one more band may save."""
MORE = Span(" ─ …", DIM)
"""After a node that is needed in a later band."""


class Drawn(NamedTuple):
    """A drawing."""

    lines: list[Line]
    references: int
    """Names that stand for a node drawn elsewhere."""


def in_bands(shape: Shape, width: int) -> Drawn | None:
    """The drawing, each band of one or more layers. None where it would be so narrow that a list reads better."""
    given = [name for name, vertex in shape.vertices.items() if vertex.state is None]
    layers = layers_of(shape.needs, given)
    columns = sorted({layers[name] for name in shape.needs if name not in given})

    @cache
    def band(first: int, last: int) -> Drawn | None:
        drawn = _band(shape, layers, columns[first], columns[last])
        return drawn if max(map(width_of, drawn.lines)) <= width else None

    @cache
    def best(first: int) -> tuple[int, int, tuple[Drawn, ...]] | None:
        """From this layer on: cost, squared widths (bands of like width look best), and the bands."""
        if first == len(columns):
            return 0, 0, ()
        found = []
        for last in range(first, len(columns)):
            if (drawn := band(first, last)) is None:
                break
            if (rest := best(last + 1)) is not None:
                squares = max(map(width_of, drawn.lines)) ** 2 + rest[1]
                found.append((PRICE + drawn.references + rest[0], squares, (drawn, *rest[2])))
        return min(found, key=lambda each: each[:2], default=None)

    chosen = best(0)
    if chosen is None or (len(columns) > 2 and 2 * len(chosen[2]) > len(columns)):
        return None
    lines: list[Line] = []
    for drawn in chosen[2]:
        lines += [*([()] if lines else []), *drawn.lines]
    return Drawn(lines, sum(each.references for each in chosen[2]))


def _band(shape: Shape, layers: dict[str, int], first: int, last: int) -> Drawn:
    """The nodes of the layers from `first` to `last`; what they need from elsewhere is a name at the left of them."""
    members = [name for name in shape.needs if shape.vertices[name].state and first <= layers[name] <= last]
    elsewhere = dict.fromkeys(each for name in members for each in shape.needs[name] if each not in members)
    outside = sorted(elsewhere, key=lambda name: shape.vertices[name].state is None)
    needs = {name: shape.needs[name] for name in members} | dict.fromkeys(outside, ())
    layout = lay_out(needs, layers_of(needs, outside))
    if layout.untied:  # those that are only mentioned need no place of their own
        tied = {giver for name, given in needs.items() for giver in given if (giver, name) not in layout.untied}
        standing = {
            name: [each for each in given if each in tied or each in members]
            for name, given in needs.items()
            if name in members or name in tied
        }
        layout = lay_out(standing, layers_of(standing, outside))
    needed_later = {giver for name, given in shape.needs.items() if layers[name] > last for giver in given}
    labels: dict[str, list[Span]] = {name: [reference_to(shape.vertices[name])] for name in outside}
    references = sum(shape.vertices[name].state is not None for name in outside)
    for name in members:
        labels[name] = label_of(shape.vertices[name])
        drawn = {item.name for layer in layout.layers for item in layer}
        if also := [each for each in needs[name] if each not in drawn or (each, name) in layout.untied]:
            labels[name].append(Span(f" ← {', '.join(reference_to(shape.vertices[each]).text for each in also)}", DIM))
            references += sum(each in members for each in also)
        if layers[name] == last and name in needed_later:
            labels[name].append(MORE)
    return Drawn(draw(layout, labels), references)
