"""Working through a graph: every stage as soon as what it needs is there, as many at once as its places allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rlhf_core.errors import Waiting
from rlhf_core.pipeline.placement import Placement
from rlhf_core.plugins.registry import Registry
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.display import Display
from rlhf_flows.engine.job import Job, Place, Tracked
from rlhf_flows.engine.results import Finished, Results
from rlhf_flows.engine.runners import Runners
from rlhf_flows.engine.walk import Walk
from rlhf_flows.graph import Graph, Node
from rlhf_flows.graph.keys import Ingredients, ingredients, key_of
from rlhf_flows.stages.context import StageResult

if TYPE_CHECKING:
    from rlhf_flows.engine.stage_record import StageRecord


class Prepared(NamedTuple):
    """A node whose inputs are there."""

    key: str
    ingredients: Ingredients
    known: StageResult | None
    """Its result, where it is stored already."""


@dataclass
class Memory:
    """The results of a campaign so far, by node, and where more are looked up."""

    registry: Registry
    results: Results
    finished: dict[str, Finished] = field(default_factory=dict)

    def prepare(self, node: Node) -> Prepared:
        """The key of a node whose predecessors are finished, and what is stored under it."""
        found = self._ingredients(node)
        key = key_of(node, found)
        return Prepared(key, found, self.results.get(key) if node.cached else None)

    def key(self, node: Node) -> str:
        """The key of a node whose predecessors are finished."""
        return key_of(node, self._ingredients(node))

    def _ingredients(self, node: Node) -> Ingredients:
        given = self.inputs(node)
        digests = {name: result.ref.sha256 for name, result in given.items()}
        return ingredients(node, digests, {name: result.metrics for name, result in given.items()}, self.registry)

    def inputs(self, node: Node) -> dict[str, StageResult]:
        """The results behind a node's inputs. Raises KeyError where one is missing."""
        return {name: self.finished[given.node].result for name, given in node.inputs.items()}

    def ready(self, node: Node) -> bool:
        """Whether everything that the node needs is there."""
        return all(name in self.finished for name in node.predecessors)


class Recorder(Protocol):
    """Whoever writes down what the stages of a campaign did."""

    def tracked(self, round_: int) -> Tracked:
        """Where a stage of a round logs."""
        ...

    def stage(self, node: Node, key: str) -> StageRecord:
        """The record of a stage."""
        ...

    def why_again(self, node: Node, prepared: Prepared) -> str:
        """What changed since the stage was computed last; empty where it never was."""
        ...

    def computed(self, node: Node, job: Job) -> None:
        """Take note of what a stage was computed from."""
        ...


class Scheduler:
    """Runs graphs inside a Prefect flow. Not for several threads at once."""

    def __init__(
        self,
        placement: Placement,
        memory: Memory,
        artifacts: ArtifactStore,
        place: Place,
        display: Display,
        record: Recorder,
        runners: Runners,
    ) -> None:
        self.placement = placement
        self.memory = memory
        self.artifacts = artifacts
        self.place = place
        self.display = display
        self.record = record
        self.runners = runners
        self.kept: list[str] = []
        """Results as Prefect knows them."""

    def run(self, graph: Graph) -> dict[str, Waiting]:
        """Run every node that is not finished yet. Those that wait for people are returned; what does not depend on
        them is done all the same.

        Raises what a stage raised, once the stages that run beside it have ended: their results are kept.
        """
        return Walk(self, graph).run()
