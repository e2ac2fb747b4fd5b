"""Converter `edits_to_comparisons`: what somebody edited an answer to is better than the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlhf_core import Answer, Comparison, Demonstration, Sample
from rlhf_core.plugins import Converter
from rlhf_plugins.tabular.pairs import pair_answer


class EditsToComparisons(Converter):
    """Compares an edited answer with the one that it was made from. Demonstrations written from nothing give none."""

    takes = frozenset({Demonstration})
    yields = frozenset({Comparison})

    def convert(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """One comparison an edit."""
        for answer in answers:
            given, question = answer.feedback, answer.question
            assert isinstance(given, Demonstration)
            original = next((sample for sample in question.samples if sample.id == given.edited), None)
            if original is None or (given.text, given.trajectory) == (original.text, original.trajectory):
                continue
            edited = Sample(prompt_id=question.prompt.id, text=given.text, trajectory=given.trajectory)
            fields = given.model_dump(include={"annotator", "source", "revision", "comment", "created_at", "seconds"})
            yield pair_answer(question.prompt, edited, original, 1.0, fields)
