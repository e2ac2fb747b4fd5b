"""What a run would do: every stage with whether its result is known, without working or writing anything."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rlhf_core.errors import RlhfError
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_core.run import Run
from rlhf_flows.artifacts import ArtifactStore, Ref
from rlhf_flows.engine import StageCache
from rlhf_flows.stage import Stage, StageContext, StageResult
from rlhf_flows.workspace import Workspace

UNKNOWN = "unknown"
State = Literal["cached", "run", "after"]
"""`after`: whether it has to run depends on the result of an earlier stage that has to run."""


class Planned(NamedTuple):
    """One stage of the plan."""

    round: int
    stage: str
    state: State
    key: str
    inputs: tuple[str, ...]


class DryRun:
    """An engine that only looks."""

    def __init__(self, pipeline: Pipeline, registry: Registry, workspace: Workspace) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.workspace = workspace
        self.artifacts = ArtifactStore(workspace.artifacts)
        self.cache = StageCache(workspace.prefect / "storage", self.artifacts)
        self.plan: list[Planned] = []

    def run(self, stage: Stage) -> StageResult:
        """The known result, or one that stands for a result nobody knows yet."""
        known = all(ref is None or ref.sha256 != UNKNOWN for ref in stage.inputs.values())
        key = stage.key(self.pipeline, self.registry)
        result = self._known(stage, key) if known else None
        state: State = "cached" if result is not None else "run" if known else "after"
        self.plan.append(Planned(stage.round, stage.name, state, key, tuple(stage.inputs)))
        if result is not None:
            return result
        unknown = Ref(kind=stage.kind, uri=f"{stage.kind}/{UNKNOWN}", sha256=UNKNOWN)
        return StageResult(ref=unknown, info={"promote": True, "rows": 0})

    def knows(self, stage: Stage) -> bool:
        """Whether the result is in the cache."""
        return self.cache.lookup(stage.key(self.pipeline, self.registry)) is not None

    def _known(self, stage: Stage, key: str) -> StageResult | None:
        if stage.cached:
            return self.cache.lookup(key)
        with self.artifacts.draft(f"dry-{key}") as draft:
            context = StageContext(stage, self.pipeline, self.registry, self.workspace, self.artifacts, Run(), draft)
            try:
                outcome = stage.body(context)
            except RlhfError:
                return None
        assert outcome.digest is not None
        ref = Ref(kind=stage.kind, uri=f"{stage.kind}/{outcome.digest}", sha256=outcome.digest)
        return StageResult(ref=ref, metrics=outcome.metrics, info=outcome.info)
