"""The MLflow runs of a flow: its own, those of its rounds below it, and those of their stages below these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlhf_core.metrics import Metric
from rlhf_core.tracking.run import TrackedRun
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.campaign.ledger import MEMORY
from rlhf_flows.campaign.record import why_again
from rlhf_flows.engine.job import Job, Tracked
from rlhf_flows.engine.stage_record import StageRecord, stage_record, status_of
from rlhf_flows.graph import Node
from rlhf_flows.workspace import Workspace

if TYPE_CHECKING:
    from rlhf_flows.engine.scheduler import Prepared


class FlowRuns:
    """What a flow of one's own writes down beside its artifacts. A campaign's record says more."""

    def __init__(
        self,
        tracker: Tracker,
        artifacts: ArtifactStore,
        workspace: Workspace,
        *,
        key: str,
        title: str,
        parameters: Mapping[str, Any],
        plugins: Mapping[str, str],
    ) -> None:
        """`key` is the flow's identity: what has the same one goes on in the same MLflow run."""
        self.tracker = tracker
        self.artifacts = artifacts
        self.workspace = workspace
        self.key = key
        self.title = title
        self.parameters = parameters
        self.plugins = plugins
        self._rounds: dict[int, TrackedRun] = {}

    @cached_property
    def run(self) -> TrackedRun:
        """The flow's MLflow run."""
        tags = {"rlhf.pipeline": self.tracker.experiment, "rlhf.flow": "own"}
        run = self.tracker.campaign(self.key, self.title, flat(dict(self.parameters)), tags)
        run.set_tags({"rlhf.plugins": json.dumps(self.plugins)})
        return run

    def round_run(self, round_: int) -> TrackedRun:
        """The MLflow run of one round."""
        if round_ not in self._rounds:
            name = f"round {round_}" if round_ else "start"
            tags = {"rlhf.level": "round", "rlhf.round": str(round_)}
            self._rounds[round_] = self.run.child(f"{self.key}/round-{round_}", name, tags)
        return self._rounds[round_]

    def tracked(self, round_: int) -> Tracked:
        """Where a stage of a round logs, for a worker anywhere."""
        return Tracked(parent=self.round_run(round_).run_id, root=self.run.run_id, key=self.key)

    def stage(self, node: Node, key: str) -> StageRecord:
        """The record of one stage, below its round."""
        return stage_record(self.tracker, self.tracked(node.round), node, key, self.workspace)

    def why_again(self, node: Node, prepared: Prepared) -> str:
        """What changed since the stage was computed last, in words; empty where it never was."""
        return why_again(self.artifacts, node, prepared)

    def computed(self, node: Node, job: Job) -> None:
        """Remember what a stage was computed from, so that the next time it can be said what changed."""
        text = json.dumps({"key": job.key, "ingredients": job.ingredients})
        self.artifacts.write_text(f"{MEMORY}/{node.pipeline}-{node.round:04}-{node.name}.json", text)

    def round_done(self, round_: int, metrics: Mapping[str, Metric], graph: str) -> None:
        """What was measured in a round, with the round's run and as a point of the flow's; and the round's graph."""
        run = self.round_run(round_)
        run.log_metric_objects(metrics, round_)
        self.run.log_metric_objects(metrics, round_)
        run.log_text(graph, "graph.json")
        run.finish()

    def finish(self) -> None:
        """The flow is done."""
        self.run.finish()

    def stopped(self, error: BaseException) -> None:
        """The flow ended early."""
        for run in self._rounds.values():
            run.finish(status_of(error))
        self.run.finish(status_of(error))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b.0.c` -> value, as MLflow shows them."""
    if isinstance(value, dict):
        parts: Sequence[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, inner in parts:
        found |= flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return found
