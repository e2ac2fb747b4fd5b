"""Converter `clicks_to_comparisons`: of two answers, the one with the higher rate of clicks, likes or shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import Field

from rlhf_core import Answer, Comparison, PluginConfig, Reaction
from rlhf_core.plugins import Converter
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.reactions.answers import compared
from rlhf_plugins.reactions.tally import Standing


class ClicksToComparisons(Converter):
    """Compares the samples of a prompt by how often people reacted, as sure as the rates differ.

    Each channel and each action is compared for itself; counts of one sample are added up. Fewer dislikes are better.
    """

    takes = frozenset({Reaction})
    yields = frozenset({Comparison})

    class Config(PluginConfig):
        """What is compared."""

        min_exposures: int = Field(1, ge=1)
        """Samples with fewer exposures are not compared."""
        max_pairs: int | None = Field(None, ge=1)
        """At most so many comparisons a prompt and action, picked by a hash of their content."""

    def convert(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The comparisons, by prompt, annotator and action."""
        prompts: dict[str, Prompt] = {}
        counts: dict[tuple[str, str, str], dict[str, _Sum]] = {}
        for answer in answers:
            given, question = answer.feedback, answer.question
            assert isinstance(given, Reaction)
            sample = next(sample for sample in question.samples if sample.id == given.sample)
            prompts[question.prompt.id] = question.prompt
            sums = counts.setdefault((question.prompt.id, given.annotator, given.action), {})
            sums.setdefault(sample.id, _Sum(sample, given)).add(given)
        for (prompt_id, annotator, action), sums in sorted(counts.items()):
            if action == "edit":
                continue  # that it was edited does not say how much
            shown = [each for _, each in sorted(sums.items()) if each.exposures >= self.config.min_exposures]
            if len(shown) < 2:
                continue
            latest = max((each.latest for each in shown), key=_when)
            fields = {"annotator": annotator, "source": latest.source, "created_at": latest.created_at}
            standings = [(each.sample, Standing(each.count, each.exposures, 0)) for each in shown]
            yield from compared(prompts[prompt_id], standings, action, self.config.max_pairs, fields)


class _Sum:
    """The counts of one sample, over all questions that showed it."""

    def __init__(self, sample: Sample, first: Reaction) -> None:
        self.sample = sample
        self.latest = first
        self.count = 0
        self.exposures = 0

    def add(self, given: Reaction) -> None:
        self.count += given.count
        self.exposures += given.exposures
        self.latest = max(self.latest, given, key=_when)


def _when(given: Reaction) -> tuple[str, str]:
    return given.given_at, given.id
