"""Clicks on competing texts -> comparisons within a group, or reactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from rlhf_core.feedback.convert import clicks_to_probability
from rlhf_core.records import Answer, Prompt, Question, Reaction, Sample, content_id
from rlhf_plugins.tabular.mapping import MappingConfig
from rlhf_plugins.tabular.meaning import Meaning
from rlhf_plugins.tabular.pairs import pair_answer

Counts = tuple[int, int]


def add_up(rows: Iterable[Meaning]) -> dict[str, tuple[Prompt, dict[str, list[int]]]]:
    """Group -> its first prompt and text -> [clicks, impressions], equal texts of a group added up.

    The rows of a group need not follow each other, so this holds one entry a different text in memory.
    """
    groups: dict[str, tuple[Prompt, dict[str, list[int]]]] = {}
    for row in rows:
        key = row.prompt.group or row.prompt.content
        _, texts = groups.setdefault(key, (row.prompt, {}))
        sums = texts.setdefault(row.text or "", [0, 0])
        sums[0] += row.clicks
        sums[1] += row.impressions
    return groups


def click_answers(rows: Iterable[Meaning], config: MappingConfig, fields: dict[str, Any]) -> Iterator[Answer]:
    """The feedback in the clicks; `fields` go to every record (annotator, source, …)."""
    for prompt, texts in add_up(rows).values():
        shown = [
            (Sample(prompt_id=prompt.id, text=text), clicks, impressions)
            for text, (clicks, impressions) in texts.items()
            if impressions >= config.min_exposures
        ]
        if config.clicks_as == "reactions":
            for sample, clicks, impressions in shown:
                question = Question(prompt=prompt, samples=(sample,))
                reaction = Reaction(
                    question_id=question.id, sample=sample.id, count=clicks, exposures=impressions, **fields
                )
                yield Answer(question=question, feedback=reaction)
            continue
        pairs = list(combinations(shown, 2))
        if config.max_pairs_per_group is not None and len(pairs) > config.max_pairs_per_group:
            pairs.sort(key=lambda pair: content_id(sorted((pair[0][0].id, pair[1][0].id))))
            pairs = pairs[: config.max_pairs_per_group]
        for (a, *counts_a), (b, *counts_b) in pairs:
            yield pair_answer(prompt, a, b, clicks_to_probability(*counts_a, *counts_b), fields)
