"""A stage: one cached step of a round, described by what its result depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_core.run import Run
from rlhf_flows.artifacts import ArtifactStore, Ref
from rlhf_flows.workspace import Workspace

STAGE_FORMAT = 1
"""Raised when what a stage writes changes its meaning, so that older results are not taken for new ones."""


@dataclass(frozen=True)
class Outcome:
    """What a stage's body found, beside the files it wrote."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    info: dict[str, JsonValue] = field(default_factory=dict)
    digest: str | None = None
    """Identity of the content where it names itself; otherwise the files are hashed."""


class StageResult(BaseModel):
    """A finished stage, small enough to be Prefect's persisted result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    metrics: dict[str, Metric] = {}
    info: dict[str, JsonValue] = {}
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """What to do, and everything that the result depends on."""

    name: str
    body: Callable[[StageContext], Outcome]
    title: str
    """The word in the progress display."""
    kind: str
    """Kind of the artifact it writes."""
    round: int = 0
    plugins: tuple[tuple[str, Use], ...] = ()
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    inputs: Mapping[str, Ref | None] = field(default_factory=dict)
    cached: bool = True
    """False for stages that read the store: they run each time and name their result by its content."""

    def seed(self, pipeline: Pipeline) -> int:
        """The stage's own seed, 31 bits, from the pipeline's seed, the stage and the round."""
        digest = hashlib.sha256(f"{pipeline.seed}/{self.name}/{self.round}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def key(self, pipeline: Pipeline, registry: Registry) -> str:
        """The cache key: stage, plugins with versions and configuration, settings, input digests, seed."""
        return f"{self.name}-" + content_id(
            {
                "format": STAGE_FORMAT,
                "stage": self.name,
                "round": self.round,
                "plugins": [[kind, registry.fingerprint(kind, use)] for kind, use in self.plugins],
                "settings": dict(self.settings),
                "inputs": {name: ref and ref.sha256 for name, ref in self.inputs.items()},
                "seed": self.seed(pipeline),
            }
        )


@dataclass(frozen=True)
class StageContext:
    """What a stage's body works with."""

    stage: Stage
    pipeline: Pipeline
    registry: Registry
    workspace: Workspace
    artifacts: ArtifactStore
    run: Run
    draft: Path
    """The empty folder that becomes the artifact."""

    def input(self, name: str) -> Path | None:
        """Folder of an input artifact; None where the stage was given none."""
        ref = self.stage.inputs.get(name)
        return self.artifacts.path(ref) if ref is not None else None

    def need(self, name: str) -> Path:
        """Folder of an input artifact that must be there."""
        folder = self.input(name)
        if folder is None:
            raise KeyError(f"stage {self.stage.name} has no input {name}")
        return folder

    def digest(self, name: str) -> str:
        """Short digest of an input artifact."""
        ref = self.stage.inputs[name]
        assert ref is not None
        return ref.short

    def create(self, kind: str, use: Use) -> Any:
        """A plugin that logs and checkpoints through this stage."""
        return self.registry.create(kind, use, self.run)
