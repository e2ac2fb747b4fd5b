"""Preferences straight from annotators, while the policy is optimised."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import Annotator, DeferredAnnotator
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Comparison, Question, Ranking, Rating
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.grading import Graded

if TYPE_CHECKING:
    from rlhf_core.plugins import Use
    from rlhf_plugins.optimizers.text.task import Task


class Preferred(NamedTuple):
    """P pairs of answers, by their rows in the batch."""

    better: Tensor
    """[P] int64."""
    worse: Tensor
    """[P] int64."""
    sure: Tensor
    """[P] float32 in [0.5, 1]: the share of the annotators' answers that say so."""


class Asking:
    """Asks the annotator `use` about the answers of each step, `overlap` times a question."""

    def __init__(self, use: Use, overlap: int, task: Task) -> None:
        self.annotator: Annotator = Registry().create("annotators", use, run=task.run)
        self.overlap = overlap
        if isinstance(self.annotator, DeferredAnnotator):
            raise TrainingError(
                f"`{use.use}` answers later, and training goes on at once",
                where=task.name,
                remedy="Ask people under `ask:`, and train on the reward model that learns from them.",
            )
        if not set(self.annotator.yields) & {Comparison, Ranking, Rating}:
            raise TrainingError(f"`{use.use}` does not say which of two answers is better", where=task.name)

    def preferred(self, batch: Graded) -> Preferred:
        """Of the different answers to each prompt, the two that the annotator tells apart best; ties are left out."""
        found = world.from_first(lambda: [pair for start in self._groups(batch) for pair in self._told(batch, start)])
        device = batch.scores.device
        better, worse, sure = zip(*found, strict=True) if found else ((), (), ())
        rows = (torch.tensor(each, dtype=torch.int64, device=device) for each in (better, worse))
        return Preferred(*rows, torch.tensor(sure, dtype=torch.float32, device=device))

    def _groups(self, batch: Graded) -> range:
        return range(0, len(batch.samples), batch.group)

    def _told(self, batch: Graded, start: int) -> list[tuple[int, int, float]]:
        """The clearest preference among the answers from row `start` on; none where there is nothing to tell."""
        samples = batch.samples[start : start + batch.group]
        rows = {sample.id: start + i for i, sample in reversed(list(enumerate(samples)))}
        if len(rows) < 2:
            return []
        different = tuple(sample for i, sample in enumerate(samples) if rows[sample.id] == start + i)
        question = Question(prompt=batch.prompts[start], samples=different, reason="online", wanted=self.overlap)
        shown = question if self.annotator.source == "simulated" else question.blind()
        answers = [Answer(question=question, feedback=each) for each in self.annotator.annotate([shown])]
        pairs = FeedbackSet.of(answers).pairs()
        if not pairs:
            return []
        clearest = max(pairs, key=lambda pair: abs(pair.probability - 0.5))
        first, second, probability = rows[clearest.first.id], rows[clearest.second.id], clearest.probability
        if probability == 0.5:
            return []
        return [(first, second, probability) if probability > 0.5 else (second, first, 1 - probability)]
