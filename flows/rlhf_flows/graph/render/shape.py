"""What there is to draw of a graph: its nodes, what comes from outside, and the edges that say something new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rlhf_flows.graph.node import Node
from rlhf_flows.graph.render.safe import shown
from rlhf_flows.graph.states import NodeState

LONG = 28
"""Letters of names from outside that one vertex shows; it counts the others."""


class Vertex(NamedTuple):
    """One thing in the drawing."""

    name: str
    """Unique in the drawing; a node's id."""
    label: str
    state: NodeState | None
    """None for what comes from outside."""


class Shape(NamedTuple):
    """What is drawn."""

    vertices: dict[str, Vertex]
    needs: dict[str, tuple[str, ...]]
    """The vertices from which an edge to this one is drawn."""
    implied: tuple[tuple[str, str], ...]
    """The edges left out, because a longer path says the same: labels of the giving and of the taking node."""


def shape_of(states: Sequence[NodeState]) -> Shape:
    """The transitive reduction of the graph; results of earlier rounds that feed the same nodes are one vertex."""
    nodes = {state.node.id: state.node for state in states}
    needs = _reduced(nodes)
    stages = {node.stage for node in nodes.values()}
    labels = _labels(nodes.values())
    vertices = {state.node.id: Vertex(state.node.id, labels[state.node.id], state) for state in states}
    outside, renamed = _fold(nodes, needs, stages)
    for vertex in outside:
        vertices[vertex.name] = vertex
    drawn: dict[str, tuple[str, ...]] = {}
    for name in nodes:
        own_first = sorted(needs[name], key=lambda each: each in renamed)
        drawn[name] = tuple(dict.fromkeys(renamed.get(each, each) for each in own_first))
    implied = [
        (labels[giver] if giver in labels else _given_label([_short(giver, stages)], [_round(giver)]), labels[name])
        for name, node in nodes.items()
        for giver in node.predecessors
        if giver not in needs[name]
    ]
    return Shape(vertices, drawn | {vertex.name: () for vertex in outside}, tuple(implied))


def _reduced(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """What each node needs, without what one of the others needs, directly or not, as well."""
    before: dict[str, set[str]] = {}

    def ancestors(name: str) -> set[str]:
        if name not in before:
            before[name] = set()  # a circle would end here instead of never
            given = nodes[name].predecessors if name in nodes else ()
            before[name] = set(given).union(*(ancestors(each) for each in given))
        return before[name]

    reduced: dict[str, list[str]] = {}
    for name, node in nodes.items():
        given = list(dict.fromkeys(each.node for each in node.inputs.values()))
        reduced[name] = [each for each in given if not any(each in ancestors(other) for other in given)]
    return reduced


def _labels(nodes: Iterable[Node]) -> dict[str, str]:
    """A node's name without its stage, `win_rate` for `evaluate_win_rate`, where no other of the round has it too."""
    nodes = list(nodes)
    short = {node.id: _without_stage(node.name, {node.stage}) for node in nodes}
    taken = Counter((node.round, short[node.id]) for node in nodes)
    return {node.id: shown(short[node.id] if taken[node.round, short[node.id]] == 1 else node.name) for node in nodes}


def _without_stage(name: str, stages: set[str]) -> str:
    for stage in stages:
        if name.startswith(f"{stage}_") and len(name) > len(stage) + 1:
            return name[len(stage) + 1 :]
    return name


def _short(identity: str, stages: set[str]) -> str:
    return shown(_without_stage(identity.partition("/")[2], stages))


def _round(identity: str) -> str:
    return shown(identity.partition("/")[0])


def _fold(
    nodes: Mapping[str, Node], needs: Mapping[str, list[str]], stages: set[str]
) -> tuple[list[Vertex], dict[str, str]]:
    """What comes from outside as few vertices, and the vertex that each of the outside's nodes is a part of."""
    takers: dict[str, list[str]] = {}
    for name in nodes:
        for each in needs[name]:
            if each not in nodes:
                takers.setdefault(each, []).append(name)
    named: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for giver, taken_by in takers.items():
        named.setdefault((tuple(taken_by), _short(giver, stages)), []).append(giver)
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (users, _), givers in named.items():
        groups.setdefault((users, tuple(sorted(map(_round, givers)))), []).extend(givers)
    outside: list[Vertex] = []
    renamed: dict[str, str] = {}
    for (_, numbers), givers in groups.items():
        label = _given_label(list(dict.fromkeys(_short(each, stages) for each in givers)), numbers)
        vertex = Vertex(f"outside {len(outside)}", label, None)
        outside.append(vertex)
        renamed |= dict.fromkeys(givers, vertex.name)
    return outside, renamed


def _given_label(names: Sequence[str], rounds: Sequence[str]) -> str:
    """`samples, gold (round 0)` or `questions, people +3 (rounds 1–29)`."""
    few = [name for i, name in enumerate(names) if i == 0 or len(", ".join(names[: i + 1])) <= LONG]
    said = ", ".join(few) + (f" +{len(names) - len(few)}" if len(few) < len(names) else "")
    numbers = sorted({int(each) for each in rounds if each.isdecimal()})
    if not numbers:
        return said
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spans = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"{said} (round{'s' if len(numbers) > 1 else ''} {', '.join(spans)})"
