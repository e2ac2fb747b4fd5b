"""Telling the steps that listen what happens to a campaign: each event once, whatever is killed and run again."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import JsonValue

from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.plugins.step import Event, EventName, Step
from rlhf_core.records import content_id
from rlhf_core.run import Run
from rlhf_flows.artifact_store import ArtifactStore

HEARD = "heard"


class _Noting(Run):
    """Hands a step's notes on."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def note(self, text: str) -> None:
        """As `Run.note`."""
        self._note(text)


class Listeners:
    """The steps of a pipeline that want to be told."""

    def __init__(
        self,
        pipeline: Pipeline,
        registry: Registry,
        artifacts: ArtifactStore,
        campaign: str,
        note: Callable[[str], None],
    ) -> None:
        self.pipeline = pipeline
        self.artifacts = artifacts
        self.campaign = campaign
        self.note = note
        self.steps: list[tuple[str, Step]] = []
        for use in pipeline.steps:
            plain = Use(use=use.use, **use.options)
            if registry.load("steps", use.use).hears:  # type: ignore[attr-defined]
                step: Step = registry.create("steps", plain, _Noting(note))
                self.steps.append((content_id(plain.model_dump(mode="json")), step))

    def tell(self, name: EventName, round_: int, text: str, what: str, data: dict[str, JsonValue]) -> None:
        """Tell everybody who listens, unless they were told before. `what` tells events of one name and round apart.

        An error of a step is noted and stops nothing.
        """
        key = f"{self.campaign}-{round_}-{name}-{what}"
        event = Event(name, self.pipeline.pipeline, round_, text, key, data)
        for identity, step in self.steps:
            mark = f"{HEARD}/{content_id([key, identity])}.json"
            if name not in step.hears or self.artifacts.read_text(mark) is not None:
                continue
            try:
                step.hear(event)
            except Exception as error:
                self.note(f"a step could not be told that {text}: {type(error).__name__}: {error}")
            self.artifacts.write_text(mark, "{}")
