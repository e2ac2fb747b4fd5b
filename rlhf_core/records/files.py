"""Files of records, one a line, and those that the artifact of a campaign's data consists of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rlhf_core.records.questions import Answer
from rlhf_core.records.record import Record
from rlhf_core.records.samples import Prompt, Split

PROMPTS_FILE = "prompts.jsonl"
"""A data artifact's prompts, each once."""
DEMONSTRATIONS_FILE = "demonstrations.jsonl"
"""Its expert answers."""
QUESTIONS_FILE = "questions.txt"
"""Ids of the questions that its feedback answers, one a line; the answers lie in the feedback store."""

R = TypeVar("R", bound=Record)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """One record a line, as JSON, without the time that feedback was given at; the number of lines."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            exclude = {"feedback": {"created_at"}} if isinstance(record, Answer) else None
            file.write(record.model_dump_json(exclude=exclude) + "\n")
            count += 1
    return count


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records that `write_records` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield kind.model_validate_json(line)


def prompts_of(data: Path, *splits: Split) -> list[Prompt]:
    """The prompts of a data artifact that are of some splits, in its order."""
    from rlhf_core.splits import split_of

    return [prompt for prompt in read_records(data / PROMPTS_FILE, Prompt) if split_of(prompt) in splits]


def demonstrations_of(data: Path, split: Split) -> list[Answer]:
    """The expert answers of a data artifact to prompts of one split, in its order."""
    from rlhf_core.splits import split_of

    answers = read_records(data / DEMONSTRATIONS_FILE, Answer)
    return [answer for answer in answers if split_of(answer.question.prompt) == split]
