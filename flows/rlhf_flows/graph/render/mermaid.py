"""A graph as a mermaid flowchart, for Markdown pages and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhf_flows.graph.render.looks import GIVEN, LOOKS
from rlhf_flows.graph.render.safe import shown
from rlhf_flows.graph.render.shape import Vertex, shape_of
from rlhf_flows.graph.states import NodeState, by_round


def to_mermaid(states: Sequence[NodeState]) -> str:
    """A `flowchart LR`: a class for each state, a subgraph for each round where there are several."""
    shape, rounds = shape_of(states), by_round(states)
    ids = {name: f"n{i}" for i, name in enumerate(shape.vertices)}
    lines = ["flowchart LR"]
    if shape.implied:
        lines.append(f"  %% {len(shape.implied)} edges that a longer path implies are not drawn")
    for vertex in shape.vertices.values():
        if vertex.state is None:
            lines.append(f"  {ids[vertex.name]}({_text(vertex)}):::given")
    for number, members in rounds.items():
        indent = "    " if len(rounds) > 1 else "  "
        if len(rounds) > 1:
            lines.append(f'  subgraph round_{number}["round {number}"]')
        for state in members:
            lines.append(f"{indent}{ids[state.node.id]}[{_text(shape.vertices[state.node.id])}]:::{state.state}")
        if len(rounds) > 1:
            lines.append("  end")
    for name, needs in shape.needs.items():
        lines += [f"  {ids[each]} --> {ids[name]}" for each in needs]
    for state_name, look in LOOKS.items():
        lines.append(f"  classDef {state_name} fill:{look.fill},stroke:{look.line},color:#202124")
    lines.append(f"  classDef given fill:{GIVEN.fill},stroke:{GIVEN.line},color:#5f6368,stroke-dasharray:4 3")
    return "\n".join(lines) + "\n"


def _text(vertex: Vertex) -> str:
    """The label in quotes, each part on a line of its own."""
    if vertex.state is None:
        return f'"{escaped(vertex.label)}"'
    parts = [f"{escaped(vertex.label)} {LOOKS[vertex.state.state].mark}"]
    parts += [escaped(shown(vertex.state.runs_on))] if vertex.state.runs_on else []
    return f'"{"<br/>".join(parts)}"'


def escaped(text: str) -> str:
    """The text for a quoted label. Mermaid reads Markdown, HTML and icons there, so their signs are made numbers."""

    def harmless(place: int, char: str) -> bool:
        if char == "_":  # inside a word it is no emphasis
            return text[place - 1 : place].isalnum() and text[place + 1 : place + 2].isalnum()
        return char.isalnum() or char in " ,()/–·" or (char in ".-" and place > 0 and not listed)

    listed = re.match(r"\d+[.)]", text) is not None
    return "".join(
        char if harmless(i, char) and not (listed and char == ")") else f"#{ord(char)};" for i, char in enumerate(text)
    )
