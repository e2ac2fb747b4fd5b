"""Annotator `principles`: a program that answers by a written list of values and says which of them decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rlhf_core import Annotator, Comparison, Feedback, PluginConfig, Question, Ranking
from rlhf_plugins.values.principles import PrincipleList, load, own_file


class Principles(Annotator):
    """Compares two samples, ranks more. Every principle's part in the answer is in `reasons`, the version in `comment`.

    A reason is how much better the preferred sample keeps the principle than the others do on average, in the
    principle's own score; after a tie, how much better the first does.
    """

    yields = frozenset({Comparison, Ranking})

    class Config(PluginConfig):
        """Which values, and how fine."""

        list: str | PrincipleList = "newsroom"
        """Name of a packaged list, path of a YAML file, or the list itself (name, version, principles)."""
        weights: dict[str, float] = {}
        """Other weights for some principles, by name."""
        tie_below: float = Field(0.05, ge=0)
        """Difference in weighted points up to which two samples tie."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The list's own file, where it has one."""
        return own_file(config.list)

    def set_up(self) -> None:
        """Read the list."""
        self.principles = load(self.config.list).reweighted(self.config.weights)

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """One answer a question: a program has nothing to add to its own answer."""
        for question in questions:
            if len(question.samples) < 2:
                yield question.skip("nothing to compare", source=self.source)
                continue
            scores = [self.principles.scores(question.prompt, sample) for sample in question.samples]
            values = [sum(self.principles.points(each).values()) for each in scores]
            fields = {"comment": str(self.principles), "source": self.source, "reasons": _reasons(scores, values)}
            if len(values) == 2:
                yield question.compare(values, tie_below=self.config.tie_below, **fields)
            else:
                yield question.rank(values, tie_below=self.config.tie_below, **fields)


def _reasons(scores: Sequence[dict[str, float]], values: Sequence[float]) -> dict[str, float]:
    """For each principle: the best sample's score minus the mean of the others'."""
    best = max(range(len(values)), key=values.__getitem__)
    others = [each for number, each in enumerate(scores) if number != best]
    return {name: score - sum(each[name] for each in others) / len(others) for name, score in scores[best].items()}
