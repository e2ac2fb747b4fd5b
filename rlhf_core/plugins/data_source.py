"""Where prompts, expert answers and feedback that already exists come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from rlhf_core.plugins.base import Plugin
from rlhf_core.records import Answer, Feedback, Prompt


class DataSource(Plugin):
    """Yields what a campaign starts from; lazily, so that a source may be larger than memory."""

    kind: ClassVar[str] = "data_sources"

    @classmethod
    def yields(cls, config: Any) -> frozenset[type[Feedback]]:
        """The kinds of feedback that `feedback()` yields with this config, known before anything is read."""
        return frozenset()

    def prompts(self) -> Iterator[Prompt]:
        """The prompts to ask the policy."""
        return iter(())

    def demonstrations(self) -> Iterator[Answer]:
        """Known answers for imitation: questions without samples, answered by demonstrations."""
        return iter(())

    def feedback(self) -> Iterator[Answer]:
        """Feedback that already exists, with the samples it is about."""
        return iter(())
