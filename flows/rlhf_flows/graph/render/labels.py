"""What a terminal shows for a node."""

from __future__ import annotations

from rlhf_flows.graph.render.lines import DIM, Span
from rlhf_flows.graph.render.looks import LOOKS
from rlhf_flows.graph.render.safe import shown
from rlhf_flows.graph.render.shape import Vertex


def label_of(vertex: Vertex) -> list[Span]:
    """Its name, its mark, and where it runs if that is not here."""
    if vertex.state is None:
        return [Span(vertex.label, DIM)]
    look = LOOKS[vertex.state.state]
    where = shown(vertex.state.runs_on)
    spans = [Span(f"{vertex.label} "), Span(look.mark, look.style)]
    return [*spans, Span(f"  {where}", "magenta")] if where else spans


def reference_to(vertex: Vertex) -> Span:
    """What stands where it is needed and drawn elsewhere."""
    return Span(vertex.label if vertex.state is None else f"({vertex.label})", DIM)
