"""Annotator `reactions`: the users of a product, who are shown the samples and click, like, share or edit them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field

from rlhf_core import TEXT, Demonstration, Feedback, PluginConfig, Question, Reaction
from rlhf_core.errors import DataError
from rlhf_core.feedback.events import EventCount, EventLog
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins import DeferredAnnotator
from rlhf_core.records import Modality, content_id
from rlhf_plugins.reactions.answers import reaction
from rlhf_plugins.reactions.tally import ACTIONS, IMPRESSION, Tally, examined_log


class Reactions(DeferredAnnotator):
    """Offers the samples to a product, and counts what the product reports its users to do with them.

    The product takes the samples from `/api/events/questions` of `rlhf annotate` and posts impressions and reactions to
    `/api/events`, with the token of `rlhf invite NAME --app`. Exposures count as much as their position is looked at,
    which the product's whole log tells; an edit is a demonstration. Reward models that learn from comparisons need
    `ask: {convert: {use: clicks_to_comparisons}}`.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    yields = frozenset({Reaction, Demonstration})
    where = "Products report to `rlhf annotate` what their users do"

    class Config(PluginConfig):
        """When enough was seen."""

        min_exposures: int = Field(100, ge=1)
        """Impressions that each sample of a question needs before what its users did counts."""

    def post(self, questions: Sequence[Question]) -> None:
        """Offer their samples."""
        with self._store() as store:
            EventLog(store).offer(questions)

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """The counts of every sample that was shown often enough, and the edits."""
        by_id = {question.id: question for question in questions}
        with self._store() as store:
            log = EventLog(store)
            counts, edits = log.counts(), log.edits()
            channels: dict[str, list[EventCount]] = defaultdict(list)
            for count in counts:
                channels[count.channel].append(count)
            given = [each for channel, seen in channels.items() for each in self._reactions(channel, seen, by_id)]
            complete = {id for id, question in by_id.items() if not self._unseen(question, given)}
            log.close(complete)
        yield from given
        for edit in edits:
            question = by_id.get(edit.question_id)
            if question is not None:
                who = f"{edit.channel} ({content_id(edit.event_id)[:8]})"  # every edit is somebody's
                yield question.demonstrate(edit.text, edited=edit.sample_id, annotator=who, created_at=edit.at)

    def missing(self, questions: Sequence[Question], given: Sequence[Feedback]) -> int:
        """The questions that have a sample which was not shown often enough anywhere."""
        return sum(self._unseen(question, given) for question in questions)

    def _reactions(
        self, channel: str, seen: Sequence[EventCount], questions: dict[str, Question]
    ) -> Iterator[Reaction]:
        tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        last: dict[tuple[str, str], Any] = {}
        for count in seen:
            key = (count.question_id, count.sample_id)
            tallies[key].add(count.action, count.position, count.number)
            last[key] = max(last.get(key, count.last), count.last)
        found = examined_log(tallies.items())
        taken = {count.action for count in seen} - {IMPRESSION} or {"click"}
        for (question_id, sample_id), tally in sorted(tallies.items()):
            question = questions.get(question_id)
            if question is None or tally.total < self.config.min_exposures:
                continue
            sample = next(sample for sample in question.samples if sample.id == sample_id)
            fields = {"annotator": channel, "created_at": last[question_id, sample_id]}
            for action in (action for action in ACTIONS if action in taken):
                yield reaction(question, sample, tally, action, found, fields)

    def _unseen(self, question: Question, given: Sequence[Feedback]) -> bool:
        shown: dict[str, set[str]] = defaultdict(set)
        for each in given:
            if isinstance(each, Reaction) and each.question_id == question.id:
                shown[each.annotator].add(each.sample)
        wanted = {sample.id for sample in question.samples}
        return not any(wanted <= seen for seen in shown.values())

    def _store(self) -> FeedbackStore:
        if not self.run.store_url:
            raise DataError("`reactions` waits for events in a feedback store, and this run has none.")
        return FeedbackStore.open(self.run.store_url)
