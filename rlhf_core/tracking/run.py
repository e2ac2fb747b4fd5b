"""One MLflow run: parameters, metrics in batches, artifacts, datasets."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_core.metrics import Metric

if TYPE_CHECKING:
    from rlhf_core.tracking.registry import ModelVersion
    from rlhf_core.tracking.tracker import Tracker

Status = Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"]
FLUSH_AFTER_SECONDS = 2.0
FLUSH_AFTER_POINTS = 500
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
TAG_LENGTH = 8000
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
"""What MLflow accepts."""
LARGEST = 1.7976931348623157e308
"""What MLflow stores for infinity."""


class TrackedRun:
    """A run bound to its id, so that any thread may log to it.

    Metrics are collected and written in batches: at least every `FLUSH_AFTER_SECONDS` while points keep coming, and by
    `flush` and `finish`. A killed process loses what it logged since the last batch, so call `flush` before a
    checkpoint is written; what follows the checkpoint is logged again anyway.

    A resumed run skips points that it already has (same name, step and value), so going on from a checkpoint leaves
    one point a step. A point with another value is added, and MLflow shows the later one as the latest; work whose
    inputs changed should therefore get another key, hence a run of its own.
    """

    def __init__(self, tracker: Tracker, run: Any, key: str, resumed: bool) -> None:
        self.tracker = tracker
        self.run_id: str = run.info.run_id
        self.key = key
        self.resumed = resumed
        """True where the run existed before."""
        self.tags: dict[str, str] = dict(run.data.tags)
        self._artifact_uri: str = run.info.artifact_uri
        self._params: dict[str, str] = dict(run.data.params)
        self._latest = {point.key: point for point in run.data._metric_objs}
        """Name -> the last point that lay in MLflow when the run was opened."""
        self._known: dict[str, dict[tuple[int, float], int]] = {}
        """Name -> (step, value) -> time, of the points that lie in MLflow: those looked up, and summaries."""
        self._complete: set[str] = set()
        """Names whose points were looked up."""
        self._points: list[Any] = []
        self._flushed = 0.0
        self._lock = threading.RLock()

    @property
    def path(self) -> str:
        """The run's page, to be put behind the address of the MLflow UI."""
        return self.tracker.path(self.run_id)

    @property
    def root_id(self) -> str:
        """Id of the campaign's run that this one is below; its own id where it is the campaign's."""
        return self.tags.get("rlhf.root", self.run_id)

    def child(self, key: str, name: str, tags: Mapping[str, str] | None = None) -> TrackedRun:
        """The run below this one whose tag `rlhf.key` is `key`, running again, or a new one."""
        return self.tracker.child(self, key, name, tags or {})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, as text. MLflow never changes one: a changed value is kept as a tag instead."""
        from mlflow.entities import Param, RunTag

        texts = {clean_name(name): str(value)[:PARAM_LENGTH] for name, value in params.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in self._params]
        changed = {name: text for name, text in texts.items() if self._params.get(name, text) != text}
        for start in range(0, len(new), PARAMS_A_BATCH):
            self.tracker.client.log_batch(self.run_id, params=new[start : start + PARAMS_A_BATCH])
        self._params.update({param.key: param.value for param in new})
        if changed:
            tag = RunTag("rlhf.changed_params", json.dumps(changed)[:TAG_LENGTH])
            self.tracker.client.log_batch(self.run_id, tags=[tag])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; see the class for when they are written."""
        self._log(metrics, step, remember=False)

    def log_metric_objects(self, metrics: Mapping[str, Metric], step: int) -> None:
        """Record values as `name` and the ends of their intervals as `name_low` and `name_high`."""
        self._log(flat(metrics), step, remember=True)

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, Metric], step: int) -> None:
        """Record metrics as those of a logged model that this run made; points that the run has are not doubled."""
        from mlflow.entities import Metric as Point

        self.flush()
        now = int(time.time() * 1000)
        points = [
            # At the time of the run's own point, which MLflow then takes for the same one.
            Point(name, value, self._recorded(name, step, value) or now, step, model_id)
            for name, value in ((clean_name(key), value) for key, value in flat(metrics).items())
            if math.isfinite(value)
        ]
        if points:
            self.tracker.client.log_batch(self.run_id, metrics=points)

    def flush(self) -> None:
        """Write the metrics that are waiting."""
        with self._lock:
            while self._points:
                self.tracker.client.log_batch(self.run_id, metrics=self._points[:METRICS_A_BATCH])
                del self._points[:METRICS_A_BATCH]
            self._flushed = time.monotonic()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; those that already have the value cost nothing."""
        from mlflow.entities import RunTag

        new = {name: str(value)[:TAG_LENGTH] for name, value in tags.items()}
        new = {name: value for name, value in new.items() if self.tags.get(name) != value}
        if new:
            self.tracker.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in new.items()])
            self.tags.update(new)

    def describe(self, markdown: str) -> None:
        """The description at the top of the run's page."""
        self.set_tags({"mlflow.note.content": markdown})

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the artifact `name`, a relative path with a suffix that says how to show it."""
        self.tracker.client.log_text(self.run_id, text, name)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Store a file or a folder as an artifact."""
        if path.is_dir():
            self.tracker.client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self.tracker.client.log_artifact(self.run_id, str(path), folder or None)

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows as the artifact `name`.json, which MLflow shows as a table and compares across runs."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        path = f"{name}.json"
        self.log_text(json.dumps(table, ensure_ascii=False), path)
        shown = json.loads(self.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in shown:
            self.set_tags({"mlflow.loggedArtifacts": json.dumps([*shown, entry])})

    def log_dataset(self, digest: str, name: str, rows: int, uri: str, context: str = "training") -> None:
        """Record what the run read: a data set by its digest, without reading it again. Twice is once."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source, profile = json.dumps({"uri": uri}), json.dumps({"num_rows": rows})
        dataset = Dataset(name, digest[:DIGEST_LENGTH], "local", source, profile=profile)
        entry = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self.tracker.client.log_inputs(self.run_id, datasets=[entry])

    def link_model(self, version: ModelVersion, step: int = 0) -> None:
        """Show a registered model among this run's models, though another run made it. Twice is once."""
        from mlflow.entities import LoggedModelOutput

        linked = self.tracker.client.get_run(self.run_id).outputs
        if version.model_id not in {output.model_id for output in linked.model_outputs}:
            self.tracker.client.log_outputs(self.run_id, [LoggedModelOutput(version.model_id, step)])

    def finish(self, status: Status = "FINISHED") -> None:
        """Write what is waiting and end the run."""
        self.flush()
        self.tracker.client.set_terminated(self.run_id, status)

    def _log(self, metrics: Mapping[str, float], step: int, remember: bool) -> None:
        from mlflow.entities import Metric as Point

        now = int(time.time() * 1000)
        with self._lock:
            for name, value in metrics.items():
                name, value = clean_name(name), float(value)
                if self._recorded(name, step, value) is not None:
                    continue
                self._points.append(Point(name, value, now, step))
                if remember:
                    self._known.setdefault(name, {})[step, _stored(value)] = now
            waited = time.monotonic() - self._flushed
            if len(self._points) >= FLUSH_AFTER_POINTS or waited >= FLUSH_AFTER_SECONDS:
                self.flush()

    def _recorded(self, name: str, step: int, value: float) -> int | None:
        """The time of this point where the run has it, by what is known of it or, at last, by asking MLflow.

        A campaign goes forward: that the last point is of an earlier step, or this very one, answers nearly always, so
        that the number of queries does not depend on how much the run holds.
        """
        known, point, last = self._known.setdefault(name, {}), (step, _stored(value)), self._latest.get(name)
        if point not in known and last is not None and name not in self._complete and step <= last.step:
            if point == (last.step, _stored(last.value)):
                known[point] = last.timestamp
            else:
                history = self.tracker.client.get_metric_history(self.run_id, name)
                known.update({(each.step, _stored(each.value)): each.timestamp for each in history})
                self._complete.add(name)
        return known.get(point)


def flat(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Metrics with intervals as plain numbers: `name`, `name_low`, `name_high`."""
    numbers: dict[str, float] = {}
    for name, metric in metrics.items():
        ends = {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
        numbers.update({key: value for key, value in ends.items() if value is not None})
    return numbers


def clean_name(name: str) -> str:
    """`name` with what MLflow accepts in a metric's name: letters, digits, `_ - . / :` and spaces, as a plain path."""
    text = re.sub(r"[^\w./: \-]+", "_", name).strip("_ ")
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:250] or "unnamed"


def _stored(value: float) -> float:
    """The value as MLflow gives it back; all NaNs as one that equals itself."""
    if math.isnan(value):
        return math.inf
    return max(-LARGEST, min(LARGEST, value))
