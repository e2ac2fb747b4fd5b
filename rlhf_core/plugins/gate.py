"""Whether the challenger replaces the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin


class Decision(BaseModel):
    """A gate's verdict with its reasons, in words that stand in the registry and the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: bool
    reasons: tuple[str, ...]


class Gate(Plugin):
    """Decides on evidence."""

    kind: ClassVar[str] = "gates"
    round: int = 1
    """Which challenger of the campaign is judged, from 1; set by whoever asks. Gates that limit how often a campaign
    promotes by luck need it: every round is another chance."""

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """Names of the metrics that it reads; the pipeline check proves that some evaluator produces them."""
        raise NotImplementedError

    def decide(self, challenger: Mapping[str, Metric], champion: Mapping[str, Metric]) -> Decision:
        """Promote or not. `champion` holds the metrics the champion had when it was evaluated itself."""
        raise NotImplementedError
