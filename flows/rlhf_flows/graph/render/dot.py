"""A graph in the language of graphviz."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_flows.graph.render.looks import GIVEN, LOOKS
from rlhf_flows.graph.render.safe import shown
from rlhf_flows.graph.render.shape import Vertex, shape_of
from rlhf_flows.graph.states import NodeState, by_round


def to_dot(states: Sequence[NodeState]) -> str:
    """A `digraph` from left to right: a colour for each state, a cluster for each round where there are several."""
    shape, rounds = shape_of(states), by_round(states)
    name = states[0].node.pipeline if states else ""
    lines = [
        f"digraph {quoted(name)} {{",
        '  graph [rankdir=LR, fontname="Helvetica", nodesep=0.25, ranksep=0.45]',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=12, fontcolor="#202124"]',
        '  edge [color="#5f6368", arrowsize=0.7]',
    ]
    if shape.implied:
        lines.append(f"  // {len(shape.implied)} edges that a longer path implies are not drawn")
    lines += ["  " + _vertex(vertex) for vertex in shape.vertices.values() if vertex.state is None]
    for number, members in rounds.items():
        indent = "    " if len(rounds) > 1 else "  "
        if len(rounds) > 1:
            lines.append(f"  subgraph cluster_{number} {{")
            lines.append(f'    graph [label="round {number}", style=rounded, color="#dadce0", fontcolor="#5f6368"]')
        lines += [indent + _vertex(shape.vertices[state.node.id]) for state in members]
        if len(rounds) > 1:
            lines.append("  }")
    for taker, needs in shape.needs.items():
        lines += [f"  {quoted(giver)} -> {quoted(taker)}" for giver in needs]
    return "\n".join([*lines, "}"]) + "\n"


def _vertex(vertex: Vertex) -> str:
    if vertex.state is None:
        colours = f'fillcolor="{GIVEN.fill}", color="{GIVEN.line}", fontcolor="#5f6368", style="rounded,filled,dashed"'
        return f"{quoted(vertex.name)} [label={quoted(vertex.label)}, {colours}]"
    look = LOOKS[vertex.state.state]
    where = shown(vertex.state.runs_on)
    label = quoted(f"{vertex.label} {look.mark}")[:-1] + (r"\n" + quoted(where)[1:] if where else '"')
    tooltip = shown(vertex.state.why or vertex.state.result) or vertex.state.node.name
    return (
        f"{quoted(vertex.name)} [label={label}, tooltip={quoted(tooltip)}, "
        f'fillcolor="{look.fill}", color="{look.line}"]'
    )


def quoted(text: str) -> str:
    """The text as a string of the language; nothing in it is an escape or an entity."""
    return '"' + shown(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') + '"'
