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
            lines += ["  end", f"  style round_{number} fill:none,stroke:#dadce0"]
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
    listed = re.match(r"\d+[.)]", text) is not None

    def safe(place: int, char: str) -> str:
        inside_word = text[place - 1 : place].isalnum() and text[place + 1 : place + 2].isalnum()
        if char.isalnum() or char in " ,(/–·" or (char == "_" and inside_word):
            return char
        if char in ").-" and place and not listed:
            return char
        # Numbers are turned back before formulas ($$), line breaks (\n) and icons (fa:fa-car) are looked for: a joiner
        # keeps their signs apart.
        joiner = "#8288;" if char in "$\\" or (char == ":" and text[place + 1 : place + 2].isalpha()) else ""
        return f"#{ord(char)};{joiner}"

    return "".join(safe(place, char) for place, char in enumerate(text))
