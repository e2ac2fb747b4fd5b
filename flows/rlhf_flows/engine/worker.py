"""Doing one stage, in whatever process it was put: from a job to a result, with what it says on the way."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from rlhf_core.errors import PluginError
from rlhf_core.metrics import Metric
from rlhf_core.plugins.code import changed_code
from rlhf_core.plugins.registry import Registry
from rlhf_core.run import Checkpoints, Run
from rlhf_flows.artifact_store.locks import hold
from rlhf_flows.display import Display, Silent
from rlhf_flows.engine.job import Job, artifacts_of, tracker_of
from rlhf_flows.engine.process import import_the_heavy, interruptible
from rlhf_flows.engine.results import Results
from rlhf_flows.engine.stage_record import StageRecord, stage_record
from rlhf_flows.engine.visible import Shown
from rlhf_flows.graph.keys import ingredients
from rlhf_flows.stages.context import Outcome, StageContext, StageResult, body_of
from rlhf_flows.workspace import Workspace, full_disk_explained

_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Within, a stage that is done in this process draws its progress on `display`."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


@lru_cache(maxsize=1)
def registry_here() -> Registry:
    """The plugins of this environment, one for each process."""
    return Registry()


def do(job: Job, results: Mapping[str, StageResult]) -> StageResult:
    """Do the stage of `job` from the results behind its inputs, and publish what came of it.

    Raises what the stage's body raises; DamagedArtifact where an input is not what its digest says.
    """
    job.expect_servers()
    import_the_heavy()
    with interruptible(), _alone(job) as known:
        return known or _do(job, results)


@contextmanager
def _alone(job: Job) -> Iterator[StageResult | None]:
    """Hold the stage's checkpoints. A worker that outlived its run may still be at work on the same stage: within is
    what it came to, where it ended well.
    """
    path = job.place.here().checkpoints / f"{job.key}.lock"
    descriptor = hold(path, wait=False)
    waited = descriptor is None
    if descriptor is None:
        holder = path.read_text() if path.exists() else ""
        Shown(job.node).note(f"process {holder or 'unknown'} is at work on this stage already, and is waited for")
        descriptor = hold(path)
    assert descriptor is not None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
    try:
        yield Results(artifacts_of(job.place)).get(job.key) if waited and job.node.cached else None
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _do(job: Job, results: Mapping[str, StageResult]) -> StageResult:
    started = time.monotonic()
    workspace, artifacts, registry = job.place.here(), artifacts_of(job.place), registry_here()
    _expect_same_code(job, results, registry)
    record = stage_record(tracker_of(job.place, job.node.pipeline), job.tracked, job.node, job.key, workspace)
    shown = Shown(job.node)
    checkpoints = FlushedCheckpoints(workspace.checkpoints / job.key, record)
    display = _display.get() or Silent()
    run = StageRun(job.node.seed, checkpoints, display, record, shown, job.node.id)
    run.mlflow_uri, run.store_url = workspace.mlflow_store, workspace.store_url
    run.pipeline, run.round = job.node.pipeline, job.node.round
    try:
        with full_disk_explained(workspace.folder), artifacts.draft(job.key) as draft:
            context = StageContext(job.node, results, registry, artifacts, run, draft, workspace.store_url)
            outcome: Outcome = body_of(job.node)(context)
            ref = artifacts.publish(job.node.gives, draft, outcome.digest)
            record.publish_curve(artifacts)
    except BaseException as error:
        record.failed(error)
        raise
    seconds = round(time.monotonic() - started, 3)
    result = StageResult(
        ref=ref, metrics=outcome.metrics, info=outcome.info, notes=tuple(dict.fromkeys(run.notes)), seconds=seconds
    )
    record.finish(result)
    shown.done(result, record.run)
    return result


def forget_checkpoints(workspace: Workspace, key: str) -> None:
    """Remove the checkpoints of a stage whose result is stored."""
    Checkpoints(workspace.checkpoints / key).clear()


def _expect_same_code(job: Job, results: Mapping[str, StageResult], registry: Registry) -> None:
    """Raise PluginError where this process would compute the stage with other code than its key says."""
    metrics = {name: result.metrics for name, result in results.items()}
    digests = {name: result.ref.sha256 for name, result in results.items()}
    here = ingredients(job.node, digests, metrics, registry)
    if here["code"] != job.ingredients["code"]:
        other = changed_code(job.ingredients["code"], here["code"])
        raise PluginError(
            f"this worker has other code than the run: {', '.join(other[:5])}{' ...' if len(other) > 5 else ''}.",
            where=f"stage {job.node.id}",
            remedy="Install the same versions everywhere, and restart workers that were started before an edit.",
        )


class FlushedCheckpoints(Checkpoints):
    """Writes the metrics that are waiting first: what came before a checkpoint is not logged again after a kill."""

    def __init__(self, folder: Path, record: StageRecord) -> None:
        super().__init__(folder)
        self._record = record

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """As `Checkpoints.save`."""
        self._record.run.flush()
        super().save(step, write)


class StageRun(Run):
    """What a plugin says in a stage: on the terminal of the run, in Prefect's interface, and in MLflow."""

    def __init__(
        self, seed: int, checkpoints: Checkpoints, display: Display, record: StageRecord, shown: Shown, stage: str
    ) -> None:
        super().__init__(seed, checkpoints)
        self.notes: list[str] = []
        self._display = display
        self._record = record
        self._shown = shown
        self._stage = stage

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """To MLflow, and to the curves of the report."""
        self._record.log(metrics, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """To the progress bar, and to Prefect's progress artifact."""
        self._display.progress(self._stage, done, total, note)
        self._shown.progress(done, total, note)

    def note(self, text: str) -> None:
        """To the logs; to the terminal, at once where the stage runs in the run's own process."""
        self.notes.append(text)
        self._display.note(text)
        self._shown.note(text)

    def attempt(self, name: str, settings: Mapping[str, object]) -> Run:
        """With an MLflow run below the stage's, whose parameters are the settings."""
        record = self._record.attempt(name, settings)
        folder = self.checkpoints.folder
        assert folder is not None
        checkpoints = FlushedCheckpoints(folder / name, record)
        run = Attempt(self.seed, checkpoints, self._display, record, self._shown, self._stage)
        run.store_url, run.mlflow_uri = self.store_url, self.mlflow_uri
        run.pipeline, run.round = self.pipeline, self.round
        return run

    def end(self, metrics: Mapping[str, Metric], error: BaseException | None = None) -> None:
        """To the attempt's MLflow run."""
        super().end(metrics)
        self._record.ended(metrics, error)


class Attempt(StageRun):
    """One of several attempts at the same work."""

    def note(self, text: str) -> None:
        """Nothing: every attempt would say it again."""
