"""What every plugin is: one class with a typed `Config`, found through an entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rlhf_core.records import Modality
from rlhf_core.run import Run

TEXT: frozenset[Modality] = frozenset({"text"})
CONTROL: frozenset[Modality] = frozenset({"control"})
ANY: frozenset[Modality] = TEXT | CONTROL


class PluginConfig(BaseModel):
    """Base of every plugin's `Config`: unknown fields are errors, a docstring under each field documents it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Use(BaseModel):
    """A reference to a plugin in a pipeline: `{use: name, field: value, ...}`.

    A plugin whose config holds a `Use` (a panel that judges with another plugin, an ensemble) says with
    `Use.of("reward_models")` which kind it expects; the pipeline check follows it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    use: str
    """Name of an installed plugin, or `distribution/name` where two distributions offer the name."""

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's own configuration."""
        return dict(self.model_extra or {})

    @staticmethod
    def of(kind: str) -> Any:
        """Metadata for `Annotated[Use, Use.of(kind)]`."""
        return Field(json_schema_extra={"plugin_kind": kind})


class Plugin:
    """Base of all plugin kinds. Constructed with a checked `Config`, or with its fields as keyword arguments."""

    kind: ClassVar[str]
    """The kind in the plural, which is also the entry-point group's name after `rlhf.`."""
    modality: ClassVar[frozenset[Modality]] = ANY
    """The worlds the plugin works in."""

    class Config(PluginConfig):
        """No options."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """Files and folders outside the config that the plugin's result depends on: a change in them is a new result.

        Those that don't exist are passed over; using them is an error of the plugin's own.
        """
        return ()

    def __init__(self, config: Any = None, *, run: Run | None = None, **options: Any) -> None:
        self.config: Any = config if config is not None else self.Config(**options)
        self.run = run or Run()
        self.set_up()

    def set_up(self) -> None:
        """Called once after construction, for state that follows from the config."""


class Saved(Plugin):
    """A plugin with state on disk. Weights are safetensors, never pickles."""

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into the existing, empty `folder`."""
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        """Take over the state that `save` wrote to `folder`."""
        raise NotImplementedError
