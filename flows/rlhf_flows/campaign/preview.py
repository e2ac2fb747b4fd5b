"""What a run would do: every stage with whether its result is known, without working or writing anything."""

from __future__ import annotations

from rlhf_core.errors import Waiting
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.placement import place_of
from rlhf_core.plugins import DeferredAnnotator
from rlhf_core.plugins.registry import Registry
from rlhf_flows.artifact_store import ArtifactStore, Ref
from rlhf_flows.campaign.looking import look
from rlhf_flows.campaign.record import why_again
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.engine.results import Finished
from rlhf_flows.engine.runners import words
from rlhf_flows.engine.scheduler import Memory
from rlhf_flows.graph import Graph, Node
from rlhf_flows.graph.states import NodeState
from rlhf_flows.promotions import Promotion
from rlhf_flows.stages.context import StageResult
from rlhf_flows.workspace import Workspace

UNKNOWN = "unknown"


class Preview:
    """Walks through the campaign and only looks. `states` holds what was seen, by round."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Registry,
        workspace: Workspace,
        artifacts: ArtifactStore,
        memory: Memory,
        chosen: list[Promotion],
    ) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.workspace = workspace
        self.artifacts = artifacts
        self.memory = memory
        self.campaign = Campaign(pipeline, registry, memory, self._look, chosen)
        self.states: list[NodeState] = []

    def rounds(self, upto: int) -> list[NodeState]:
        """The states of all stages of the start and of the first `upto` rounds."""
        self.campaign.start()
        for _ in range(upto):
            self.campaign.collect()
            self.campaign.retrain()
        return self.states

    def _look(self, graph: Graph) -> dict[str, Waiting]:
        for node in graph:
            self.states.append(self._state(node))
        return {}

    def _state(self, node: Node) -> NodeState:
        known = all(self.memory.finished[name].result.ref.sha256 != UNKNOWN for name in node.predecessors)
        place = words(place_of(self.pipeline, node.stage))  # type: ignore[arg-type]
        if not known:
            self.memory.finished[node.id] = Finished(key="", result=_unknown(node))
            return NodeState(node, "waits" if self._waits(node) else "after", "", runs_on=place)
        prepared = self.memory.prepare(node)
        result = prepared.known if node.cached else look(node, self.memory, self.artifacts, self.workspace.store_url)
        self.memory.finished[node.id] = Finished(key=prepared.key, result=result or _unknown(node))
        if result is not None:
            return NodeState(node, "cached", prepared.key, runs_on=place, result=result.summary)
        if self._waits(node):
            return NodeState(node, "waits", prepared.key, runs_on=place)
        why = why_again(self.artifacts, node, prepared)
        return NodeState(node, "run", prepared.key, why, place)

    def _waits(self, node: Node) -> bool:
        use = node.of_role("annotator")
        return bool(use) and issubclass(self.registry.load("annotators", use[0].use), DeferredAnnotator)


def _unknown(node: Node) -> StageResult:
    """Stands for a result that nobody knows yet; of a gate, that it promotes."""
    ref = Ref(kind=node.gives, uri=f"{node.gives}/{UNKNOWN}", sha256=UNKNOWN)
    return StageResult(ref=ref, info={"promote": True, "rows": 0})
