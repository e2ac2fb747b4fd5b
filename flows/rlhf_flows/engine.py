"""Running stages: each is a Prefect task whose result is kept under the stage's cache key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from rlhf_core.errors import Waiting
from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_core.run import Checkpoints, Run
from rlhf_flows.artifacts import ArtifactStore
from rlhf_flows.display import Display
from rlhf_flows.record import CampaignRecord, StageRecord
from rlhf_flows.stage import Outcome, Stage, StageContext, StageResult
from rlhf_flows.waiting import as_waiting_state, waits_as_state
from rlhf_flows.workspace import Workspace, full_disk_explained


class Engine(Protocol):
    """Whoever can turn a stage into its result."""

    def run(self, stage: Stage) -> StageResult:
        """The stage's result, from the cache or by working for it."""
        ...

    def knows(self, stage: Stage) -> bool:
        """Whether the result is in the cache."""
        ...


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
    """What a plugin says in a stage, shown on the terminal and logged to MLflow."""

    def __init__(self, seed: int, checkpoints: Checkpoints, display: Display, record: StageRecord) -> None:
        super().__init__(seed, checkpoints)
        self._display = display
        self._record = record

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """To MLflow, and to the curves of the report."""
        self._record.log(metrics, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """To the progress bar."""
        self._display.progress(done, total, note)

    def note(self, text: str) -> None:
        """To the terminal."""
        self._display.note(text)

    def attempt(self, name: str, settings: Mapping[str, object]) -> Run:
        """With an MLflow run below the stage's, whose parameters are the settings."""
        record = self._record.attempt(name, settings)
        folder = self.checkpoints.folder
        assert folder is not None
        run = Attempt(self.seed, FlushedCheckpoints(folder / name, record), self._display, record)
        run.store_url, run.pipeline, run.round = self.store_url, self.pipeline, self.round
        return run

    def end(self, metrics: Mapping[str, Metric], error: BaseException | None = None) -> None:
        """To the attempt's MLflow run."""
        super().end(metrics)
        self._record.ended(metrics, error)


class Attempt(StageRun):
    """One of several attempts at the same work."""

    def note(self, text: str) -> None:
        """Nothing: every attempt would say it again."""


class StageCache:
    """Prefect's persisted results, read directly: to know beforehand what is cached, and never to trust half a file."""

    def __init__(self, storage: Path, artifacts: ArtifactStore) -> None:
        self.storage = storage
        self.artifacts = artifacts

    def lookup(self, key: str) -> StageResult | None:
        """The result under `key` if it is complete and its artifact is there; remains of a kill are removed."""
        path = self.storage / key
        try:
            # Prefect's record holds the serialised result, and ours is a text of JSON itself.
            result = StageResult.model_validate_json(json.loads(json.loads(path.read_text())["result"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ValidationError):
            path.unlink(missing_ok=True)
            return None
        if result.ref not in self.artifacts:
            path.unlink(missing_ok=True)
            return None
        return result


class PrefectEngine:
    """Runs stages inside a Prefect flow of this process."""

    def __init__(
        self, pipeline: Pipeline, registry: Registry, workspace: Workspace, display: Display, record: CampaignRecord
    ) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.workspace = workspace
        self.display = display
        self.record = record
        self.artifacts = ArtifactStore(workspace.artifacts)
        self.cache = StageCache(workspace.prefect / "storage", self.artifacts)
        self._under_way: dict[str, Stage] = {}
        self._waiting: list[Waiting] = []
        self._task = self._make_task()

    def run(self, stage: Stage) -> StageResult:
        """The stage's result. Its Prefect task is `Cached` where the key was seen before."""
        key = stage.key(self.pipeline, self.registry)
        known = self.cache.lookup(key) if stage.cached else None
        self._under_way[key] = stage
        self.display.begin(stage.title)
        try:
            # The round stands in the name and not in a tag: Prefect asks its server about the concurrency limit of each
            # tag, which takes two seconds after every long stage.
            task = self._task.with_options(task_run_name=f"{stage.name}, round {stage.round}")
            if not stage.cached:
                task = task.with_options(refresh_cache=True)
            with waits_as_state(self._waiting):
                found = task(key)
            result = StageResult.model_validate_json(found)
        except BaseException as error:
            waits = isinstance(error, Waiting)
            if waits:
                (self.cache.storage / key).unlink(missing_ok=True)  # Prefect keeps every state that a task returns
            self.display.end(error.what if waits else type(error).__name__, mark="waits" if waits else "failed")
            raise
        Checkpoints(self.workspace.checkpoints / key).clear()
        self.display.end(str(result.info.get("summary", "")), mark="done" if known is None else "cached")
        if known is not None:
            self.record.stage(stage, key).finish_cached(result)
        return result

    def knows(self, stage: Stage) -> bool:
        """Whether the result is in the cache."""
        return self.cache.lookup(stage.key(self.pipeline, self.registry)) is not None

    def _make_task(self) -> Any:
        from prefect import task
        from prefect.cache_policies import CachePolicy

        # The key is the task's only parameter, and the result a small text: Prefect never hashes or stores more.
        @task(
            name="stage",
            persist_result=True,
            result_serializer="json",
            cache_policy=CachePolicy.from_cache_key_fn(lambda _, parameters: parameters["key"]),
            cache_result_in_memory=False,
        )
        @as_waiting_state(self._waiting)
        def stage(key: str) -> str:
            return self._work(self._under_way[key], key).model_dump_json()

        return stage

    def _work(self, stage: Stage, key: str) -> StageResult:
        started = time.monotonic()
        record = self.record.stage(stage, key)
        seed = stage.seed(self.pipeline)
        checkpoints = FlushedCheckpoints(self.workspace.checkpoints / key, record)
        run = StageRun(seed, checkpoints, self.display, record)
        run.mlflow_uri = self.workspace.mlflow_store
        run.store_url, run.pipeline, run.round = self.workspace.store_url, self.pipeline.pipeline, stage.round
        try:
            with full_disk_explained(self.workspace.folder), self.artifacts.draft(key) as draft:
                context = StageContext(stage, self.pipeline, self.registry, self.workspace, self.artifacts, run, draft)
                outcome: Outcome = stage.body(context)
                ref = self.artifacts.publish(stage.kind, draft, outcome.digest)
        except BaseException as error:
            record.failed(error)
            raise
        result = StageResult(
            ref=ref, metrics=outcome.metrics, info=outcome.info, seconds=round(time.monotonic() - started, 3)
        )
        record.finish(result)
        return result
