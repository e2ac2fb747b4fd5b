"""A pair with a known better side -> a comparison whose order tells nothing."""

from __future__ import annotations

from typing import Any

from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample


def pair_answer(prompt: Prompt, a: Sample, b: Sample, probability: float, fields: dict[str, Any]) -> Answer:
    """The comparison of `a` and `b`, of which `a` is better with `probability`.

    The samples stand in the order of their content ids, so that neither side is better more often than chance.
    """
    if b.id < a.id:
        a, b, probability = b, a, 1 - probability
    strength = abs(2 * probability - 1)
    choice = "tie" if strength == 0 else "first" if probability > 0.5 else "second"
    question = Question(prompt=prompt, samples=(a, b))
    comparison = Comparison(
        question_id=question.id, first=a.id, second=b.id, choice=choice, strength=strength or 1.0, **fields
    )
    return Answer(question=question, feedback=comparison)
