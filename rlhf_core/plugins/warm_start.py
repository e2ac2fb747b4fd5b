"""Imitation before any feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.policy import Policy
from rlhf_core.records import Answer


class WarmStart(Plugin):
    """Teaches a policy to imitate demonstrations (supervised fine-tuning, behaviour cloning)."""

    kind: ClassVar[str] = "warm_starts"
    trains: ClassVar[type[Policy]] = Policy
    """The class of policies it can train."""

    def start(
        self, policy: Policy, demonstrations: Sequence[Answer], validation: Sequence[Answer]
    ) -> dict[str, Metric]:
        """Train `policy` in place on `demonstrations`; the metrics are measured on `validation`."""
        raise NotImplementedError
