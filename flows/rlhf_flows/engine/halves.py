"""Edges between the halves of rounds in the run of a loop: Prefect draws what belongs to a run itself, so that a half,
which is a run of its own, follows the half before it and the stages of the loop's start that it takes something from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State, StateDetails, StateType
from prefect.utilities.engine import link_state_to_flow_run_result

from rlhf_flows.engine.results import Finished
from rlhf_flows.graph import Graph


class Halves:
    """What the halves of rounds in a loop's run follow, for their `wait_for`."""

    def __init__(self, start: Graph, finished: Mapping[str, Finished]) -> None:
        """`start` is what stands before the first round; `finished` are the campaign's stages, which grow."""
        self._finished = finished
        self._needed = {node.id: node.predecessors for node in start}
        self._drawn: set[str] = set()
        """Stages of the start that an earlier half followed: later ones follow that half."""
        self._last: list[str] = []
        """The result of the half before. Prefect knows the run that a result came from by the object itself."""

    def before(self, graph: Graph) -> list[Any]:
        """What the half that runs `graph` follows."""
        start = {given.node for given in graph.outside() if given.node in self._needed} - self._drawn
        self._drawn |= start
        implied = {name for node in start for name in self._needed[node]}
        return [*self._last, *(_done(self._finished[node].task_run) for node in sorted(start - implied))]

    def ended(self, state: State[str]) -> None:
        """A half has ended well."""
        result = state.result(_sync=True)  # type: ignore[call-arg]
        # Prefect links the results of a run's tasks by itself, and not those of the runs that it called.
        link_state_to_flow_run_result(state, result)
        self._last = [result]


def _done(task_run: str) -> State[str]:
    details = StateDetails(task_run_id=task_run) if task_run else StateDetails()  # type: ignore[arg-type]
    return State(type=StateType.COMPLETED, data="", state_details=details)
