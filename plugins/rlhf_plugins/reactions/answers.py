"""Tallies of reactions -> feedback: comparisons within a group, or the counts themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from rlhf_core.feedback.convert import clicks_to_probability
from rlhf_core.records import Answer, Prompt, Question, Reaction, Sample, content_id
from rlhf_plugins.reactions.examination import Examination
from rlhf_plugins.reactions.tally import ACTIONS, Standing, Tallies, Tally, standing
from rlhf_plugins.tabular.pairs import pair_answer


class Rules(NamedTuple):
    """What becomes feedback."""

    min_exposures: int = 1
    """Texts shown less often give none."""
    max_pairs: int | None = None
    """Comparisons a group at most, picked by a hash of their content."""


def tally_comparisons(tallies: Tallies, rules: Rules, fields: dict[str, Any]) -> Iterator[Answer]:
    """The comparisons of each group's texts, for every action that anybody took there."""
    found = tallies.examination()
    for prompt, shown in _groups(tallies, rules):
        for action in _actions(shown):
            standings = [(sample, standing(tally, action, found)) for sample, tally in shown]
            yield from compared(prompt, standings, action, rules.max_pairs, fields)


def tally_reactions(tallies: Tallies, rules: Rules, fields: dict[str, Any]) -> Iterator[Answer]:
    """The counts of each text, for every action that anybody took in its group."""
    found = tallies.examination()
    for prompt, shown in _groups(tallies, rules):
        for sample, tally in shown:
            question = Question(prompt=prompt, samples=(sample,))
            for action in _actions(shown):
                yield Answer(question=question, feedback=reaction(question, sample, tally, action, found, fields))


def reaction(
    question: Question, sample: Sample, tally: Tally, action: str, found: Examination, fields: dict[str, Any]
) -> Reaction:
    """What `tally` says about `action` on `sample`: its exposures are those that count as looked at, rounded."""
    count, exposures, _ = standing(tally, action, found)
    given: dict[str, Any] = {"count": count, "exposures": max(1, count, round(exposures)), **fields}
    if given["exposures"] != tally.total:
        given["comment"] = f"{tally.total} impressions, some of them at positions that are looked at less"
    return Reaction(question_id=question.id, sample=sample.id, action=action, **given)


def compared(
    prompt: Prompt, standings: Sequence[tuple[Sample, Standing]], action: str, max_pairs: int | None,
    fields: dict[str, Any],
) -> Iterator[Answer]:  # fmt: skip
    """The comparisons of samples by one action: as sure as their rates differ (`clicks_to_probability`).

    Fewer dislikes are better. Each action but clicks has an annotator of its own, whose answers stand beside the
    others': `readers`, `readers (like)`.
    """
    if action != "click":
        fields = {**fields, "annotator": f"{fields['annotator']} ({action})"}
    pairs = [pair for pair in combinations(standings, 2) if pair[0][1].linked == pair[1][1].linked]
    if max_pairs is not None and len(pairs) > max_pairs:
        pairs.sort(key=lambda pair: content_id(sorted((pair[0][0].id, pair[1][0].id))))
        pairs = pairs[:max_pairs]
    for (a, of_a), (b, of_b) in pairs:
        probability = clicks_to_probability(of_a.reactions, of_a.exposures, of_b.reactions, of_b.exposures)
        yield pair_answer(prompt, a, b, 1 - probability if action == "dislike" else probability, fields)


def _groups(tallies: Tallies, rules: Rules) -> Iterator[tuple[Prompt, list[tuple[Sample, Tally]]]]:
    """Each group's prompt with its texts that were shown often enough."""
    for group, texts in tallies.texts.items():
        prompt = tallies.prompts[group]
        yield (
            prompt,
            [
                (Sample(prompt_id=prompt.id, text=text), tally)
                for text, tally in texts.items()
                if tally.total >= max(1, rules.min_exposures)
            ],
        )


def _actions(shown: Sequence[tuple[Sample, Tally]]) -> list[str]:
    taken = {action for _, tally in shown for action in tally.reactions}
    return [action for action in ACTIONS if action in taken]
