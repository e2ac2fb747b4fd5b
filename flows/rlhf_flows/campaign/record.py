"""What a campaign leaves behind in MLflow: its runs, the versions of its models, and why a stage ran again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.provenance import plugins_of
from rlhf_core.plugins.registry import Registry
from rlhf_core.tracking.registry import CHALLENGER, CHAMPION, Origin
from rlhf_core.tracking.run import TrackedRun
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.campaign.ledger import MEMORY, RoundSummary, campaign_key
from rlhf_flows.engine.job import Job, Tracked
from rlhf_flows.engine.stage_record import StageRecord, stage_record, status_of
from rlhf_flows.graph import Node
from rlhf_flows.graph.keys import changes
from rlhf_flows.promotions import promotions
from rlhf_flows.stages.context import StageResult
from rlhf_flows.workspace import Workspace

if TYPE_CHECKING:
    from rlhf_flows.engine.scheduler import Prepared

MOST_REASONS = 3
"""Reasons that are named why a stage runs again."""


class CampaignRecord:
    """Everything that one campaign writes down beside its artifacts and its ledger."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Registry,
        workspace: Workspace,
        artifacts: ArtifactStore,
        tracker: Tracker,
        *,
        purpose: str = "",
    ) -> None:
        """`purpose` is a word for work on the pipeline that is no campaign of it and has an MLflow run of its own."""
        self.pipeline = pipeline
        self.registry = registry
        self.workspace = workspace
        self.artifacts = artifacts
        self.tracker = tracker
        self.key = f"{purpose}-{campaign_key(pipeline)}" if purpose else campaign_key(pipeline)
        self.purpose = purpose
        self.policy_name = f"{pipeline.pipeline}-policy"
        self.reward_name = f"{pipeline.pipeline}-reward"
        self._rounds: dict[int, TrackedRun] = {}

    @cached_property
    def run(self) -> TrackedRun:
        """The campaign's MLflow run."""
        pipeline = self.pipeline
        params = _flat(pipeline.model_dump(mode="json"))
        run = self.tracker.campaign(
            self.key,
            f"{self.purpose} {pipeline.pipeline} seed {pipeline.seed}".strip(),
            params,
            {"rlhf.pipeline": pipeline.pipeline},
        )
        run.set_tags({"rlhf.plugins": json.dumps(self.plugins())})
        return run

    def plugins(self) -> dict[str, str]:
        """Plugin -> distribution and version, for every plugin that takes part."""
        return plugins_of(self.pipeline, self.registry)

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
        self.artifacts.write_text(_memory(node), text)

    def round_finished(self, summary: RoundSummary, snapshot: StageResult | None) -> None:
        """Write a finished round to MLflow and to the registry. Repeating changes nothing."""
        run = self.round_run(summary.round)
        if snapshot is not None:
            rows = int(str(snapshot.info["rows"]))
            address = self.artifacts.url(snapshot.ref.uri)
            run.log_dataset(snapshot.ref.sha256[:32], f"{self.pipeline.pipeline}-feedback", rows, address)
        run.log_metric_objects(summary.metrics, summary.round)
        run.set_tags({"rlhf.promoted": str(summary.promoted).lower(), "rlhf.gate": "; ".join(summary.reasons)})
        run.describe(_round_words(summary))
        self.run.log_metric_objects(
            {**summary.metrics, "promoted": Metric(value=float(summary.promoted))}, summary.round
        )
        self._register(summary, run)
        run.finish()

    def _register(self, summary: RoundSummary, run: TrackedRun) -> None:
        origin = Origin(
            digest=summary.policy.sha256,
            round=summary.round,
            campaign=self.key,
            seed=self.pipeline.seed,
            parent_policy=summary.parent.sha256 if summary.parent else "",
            reward=summary.reward.sha256 if summary.reward else "",
            snapshot=summary.snapshot.sha256 if summary.snapshot else "",
            snapshot_uri=summary.snapshot.uri if summary.snapshot else "",
        )
        models = self.tracker.models
        if summary.reward is not None:
            reward = Origin(
                digest=summary.reward.sha256,
                round=summary.round,
                campaign=self.key,
                seed=self.pipeline.seed,
                snapshot=origin.snapshot,
                snapshot_uri=origin.snapshot_uri,
            )
            health = {name: metric for name, metric in summary.metrics.items() if name.startswith("reward_")}
            folder = self.artifacts.path(summary.reward) / "reward"
            models.log_policy(run, folder, self.reward_name, reward, health, kind="reward_model")
        folder = self.artifacts.path(summary.policy) / "policy"
        version = models.log_policy(run, folder, self.policy_name, origin, summary.metrics)
        models.record_gate(version, summary.promoted, summary.reasons)
        models.set_alias(self.policy_name, CHALLENGER, version.version)
        if summary.promoted:
            models.set_alias(self.policy_name, CHAMPION, version.version)
            self.run.link_model(version, summary.round)
        for chosen in promotions(self.workspace, self.pipeline.pipeline, self.key):
            if chosen.after == summary.round:
                models.set_alias(self.policy_name, CHAMPION, chosen.version)

    def log_graph(self, round_: int, graph: str) -> None:
        """Keep a round's graph, as `rlhf graph --format json` prints it, with the round's run."""
        self.round_run(round_).log_text(graph, "graph.json")

    def finish(self) -> None:
        """The campaign is complete."""
        self.run.finish()

    def stopped(self, error: BaseException) -> None:
        """The campaign ended early."""
        for run in self._rounds.values():
            run.finish(status_of(error))
        self.run.finish(status_of(error))


def why_again(artifacts: ArtifactStore, node: Node, prepared: Prepared) -> str:
    """What changed since the pipeline computed a stage last, in words; empty where it never did."""
    try:
        before = json.loads(artifacts.read_text(_memory(node)) or "{}")
    except ValueError:
        before = {}  # half a document
    if not {"key", "ingredients"} <= before.keys():
        return ""
    if before["key"] == prepared.key:
        return "its result is gone, or its files were damaged"
    reasons = changes(before["ingredients"], prepared.ingredients)
    more = f", and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return "; ".join(reasons[:MOST_REASONS]) + more


def _memory(node: Node) -> str:
    """The document that says what a stage was computed from, in whatever campaign of the pipeline."""
    return f"{MEMORY}/{node.pipeline}-{node.round:04}-{node.name}.json"


def _round_words(summary: RoundSummary) -> str:
    verdict = "promoted" if summary.promoted else "kept the champion"
    reasons = [f"- {reason}" for reason in summary.reasons]
    figures = [f"- {name}: {metric}" for name, metric in summary.metrics.items()]
    return "\n".join([f"**Round {summary.round}: {verdict}.**", *reasons, "", "Figures:", *figures])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b.0.c` -> value, as MLflow shows them."""
    if isinstance(value, dict):
        parts: Sequence[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in parts:
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
