"""One stage in MLflow, with its curves also in a file for the report."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_core.errors import Waiting
from rlhf_core.metrics import Metric
from rlhf_core.tracking.run import Status, TrackedRun

if TYPE_CHECKING:
    from rlhf_core.tracking.tracker import Tracker
    from rlhf_flows.artifact_store import ArtifactStore
    from rlhf_flows.engine.job import Tracked
    from rlhf_flows.graph import Node
    from rlhf_flows.stages.context import StageResult
    from rlhf_flows.workspace import Workspace


def curve_name(key: str) -> str:
    """Name of the document with a stage's metrics by step."""
    return f"curves/{key}.jsonl"


def read_curves(text: str | None) -> dict[str, list[tuple[int, float]]]:
    """Metric -> its points, by step, of lines that `StageRecord.log` wrote.

    Of a step that was done twice, before and after a kill, the later one counts.
    """
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for line in (text or "").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # half a line, left by a kill
        step = row.pop("step")
        for name, value in row.items():
            points[name][step] = value
    return {name: sorted(by_step.items()) for name, by_step in points.items()}


class StageRecord:
    """One stage's MLflow run and its curves."""

    def __init__(self, run: TrackedRun, curve: Path, name: str, round_: int) -> None:
        self.run = run
        self.curve = curve
        """Where the curves grow while the stage runs."""
        self.name = name
        self.round = round_

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record one training step."""
        self.run.log_metrics(metrics, step)
        self.curve.parent.mkdir(parents=True, exist_ok=True)
        with self.curve.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def publish_curve(self, artifacts: ArtifactStore) -> None:
        """Put the curves where every machine finds them, beside the artifacts."""
        if self.curve.exists():
            artifacts.write_text(curve_name(self.curve.stem), self.curve.read_text())

    def finish(self, result: StageResult, **tags: str) -> None:
        """The stage is done."""
        last = self._last()
        self.run.log_metric_objects(result.metrics, last)
        self.run.log_metrics({"seconds": result.seconds}, last)
        if "rlhf.error" in self.run.tags:
            tags["rlhf.error"] = ""  # of an earlier try
        self.run.set_tags({"rlhf.artifact": result.ref.uri, "rlhf.summary": result.summary, **tags})
        self.run.finish()
        self.curve.unlink(missing_ok=True)

    def finish_cached(self, result: StageResult) -> None:
        """The stage was done before; a campaign that shares it gets a run that says so."""
        if not self.run.resumed:
            self.finish(result, **{"rlhf.cached": "true"})
        else:
            self.run.finish()

    def attempt(self, name: str, settings: Mapping[str, object]) -> StageRecord:
        """The record of one of several attempts in this stage, below it."""
        tags = {"rlhf.level": "attempt", "rlhf.stage": self.name, "rlhf.round": str(self.round)}
        run = self.run.child(f"{self.run.key}/{name}", name, tags)
        run.log_params(settings)
        return StageRecord(run, self.curve.with_name(f"{self.curve.stem}-{name}.jsonl"), self.name, self.round)

    def ended(self, metrics: Mapping[str, Metric], error: BaseException | None) -> None:
        """An attempt is over."""
        if error is not None:
            self.failed(error)
            return
        self.run.log_metric_objects(metrics, self._last())
        self.run.finish()
        self.curve.unlink(missing_ok=True)

    def failed(self, error: BaseException) -> None:
        """The stage ended with an error, or was stopped."""
        self.run.set_tags({"rlhf.error": f"{type(error).__name__}: {error}"})
        self.run.finish(status_of(error))

    def _last(self) -> int:
        """The step that results belong to: the one after the curves, so that they end in what came of them."""
        text = self.curve.read_text() if self.curve.exists() else None
        steps = [points[-1][0] for points in read_curves(text).values()]
        return max(steps) + 1 if steps else self.round


def stage_record(tracker: Tracker, tracked: Tracked, node: Node, key: str, workspace: Workspace) -> StageRecord:
    """The record of a stage, below its round's run."""
    tags = {"rlhf.level": "stage", "rlhf.stage": node.name, "rlhf.round": str(node.round)}
    title = f"{node.name} (round {node.round})"
    run = tracker.child_of(tracked.parent, tracked.root, f"{tracked.key}/{key}", title, tags)
    return StageRecord(run, workspace.folder / "curves" / f"{key}.jsonl", node.name, node.round)


def status_of(error: BaseException) -> Status:
    """What MLflow says of work that ended early; a campaign that waits for people is scheduled to go on."""
    if isinstance(error, Waiting):
        return "SCHEDULED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
