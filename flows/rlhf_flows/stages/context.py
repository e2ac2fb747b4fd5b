"""What a stage's body works with, and what it leaves."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue

from rlhf_core.metrics import Metric
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.run import Run
from rlhf_flows.artifact_store import ArtifactStore, Ref
from rlhf_flows.graph import Node


@dataclass(frozen=True)
class Outcome:
    """What a stage's body found, beside the files it wrote."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    info: dict[str, JsonValue] = field(default_factory=dict)
    digest: str | None = None
    """Identity of the content where it names itself; otherwise the files are hashed."""


class StageResult(BaseModel):
    """A finished stage: small, plain JSON. This is what stages exchange, and what is stored under a stage's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    metrics: dict[str, Metric] = {}
    info: dict[str, JsonValue] = {}
    notes: tuple[str, ...] = ()
    """What the stage's plugins had to say."""
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """One line about the result."""
        return str(self.info.get("summary", ""))


@dataclass(frozen=True)
class StageContext:
    """What a stage's body works with: its node, the artifacts that the node takes, and an empty folder to fill."""

    node: Node
    results: Mapping[str, StageResult]
    """The results behind the node's inputs, by the input's name."""
    registry: Registry
    artifacts: ArtifactStore
    run: Run
    draft: Path
    """The empty folder that becomes the artifact."""
    store_url: str
    """The feedback store."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The node's settings."""
        return self.node.settings

    def input(self, name: str) -> Path | None:
        """Local folder of an input artifact; None where the stage was given none."""
        result = self.results.get(name)
        return self.artifacts.path(result.ref) if result is not None else None

    def need(self, name: str) -> Path:
        """Local folder of an input artifact that must be there. Raises KeyError where it is not."""
        folder = self.input(name)
        if folder is None:
            raise KeyError(f"stage {self.node.name} has no input {name}")
        return folder

    def digest(self, name: str) -> str:
        """Short digest of an input artifact."""
        return self.results[name].ref.short

    def use(self, role: str) -> Use | None:
        """The plugin in a role; None where the node names none."""
        found = self.node.of_role(role)
        return found[0] if found else None

    def needed_use(self, role: str) -> Use:
        """The plugin in a role that must be there. Raises KeyError where it is not."""
        found = self.use(role)
        if found is None:
            raise KeyError(f"stage {self.node.name} has no plugin as {role}")
        return found

    def create(self, role: str) -> Any:
        """The plugin in a role, with its configuration; it logs and checkpoints through this stage."""
        return self.create_all(role)[0]

    def create_all(self, role: str) -> list[Any]:
        """All plugins in a role."""
        return [self.registry.create(each.kind, each.use, self.run) for each in self.node.plugins if each.role == role]


Body: TypeAlias = Callable[[StageContext], Outcome]


def body_of(node: Node) -> Body:
    """The function that a node names. Raises ImportError or AttributeError where there is none."""
    module, _, name = node.body.partition(":")
    body: Body = getattr(importlib.import_module(module), name)
    return body
