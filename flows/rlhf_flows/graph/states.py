"""What is known of each node of a graph before anything runs: the data that `graph.render` shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from rlhf_flows.graph.node import Node

State = Literal["cached", "run", "after", "waits"]
"""The result is known; would run; depends on a stage that has to run first; waits for people."""


class NodeState(NamedTuple):
    """A node, and what would happen with it."""

    node: Node
    state: State
    key: str
    """The cache key; empty where it cannot be known yet."""
    why: str = ""
    """Why it would run although it ran before: `rlhf_core/rl/losses.py changed since it was computed`."""
    runs_on: str = ""
    """Such as `gpu:4` or `dask`; empty for this machine."""
    result: str = ""
    """One line about the known result."""


def by_round(states: Iterable[NodeState]) -> dict[int, list[NodeState]]:
    """The states of each round, by number, in the order in which they were given."""
    rounds: dict[int, list[NodeState]] = {}
    for state in states:
        rounds.setdefault(state.node.round, []).append(state)
    return dict(sorted(rounds.items()))
