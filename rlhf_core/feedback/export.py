"""Feedback for other programs: JSON Lines of whole answers, Parquet, and TRL's preference format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.rows import answer_row, arrow_schema
from rlhf_core.records import Answer, Prompt


def jsonl(answers: Iterable[Answer]) -> Iterator[str]:
    """One answer a line, with its question: what `Answer.model_validate_json` reads."""
    for answer in answers:
        yield answer.model_dump_json() + "\n"


def trl_preferences(answers: Iterable[Answer]) -> Iterator[str]:
    """One decided pair a line: prompt, chosen, rejected, as TRL's DPO and reward trainers read them.

    Several answers to a pair are one line, decided by their mean; ties are left out. Prompts of messages give the
    conversational format. Control tasks have no texts and are left out, too.
    """
    for pair in FeedbackSet.of(answers).pairs():
        if pair.probability == 0.5 or pair.first.text is None or pair.second.text is None:
            continue
        better, worse = (pair.first, pair.second) if pair.probability > 0.5 else (pair.second, pair.first)
        row = {
            "prompt": _prompt(pair.prompt),
            "chosen": _answer(pair.prompt, better.text or ""),
            "rejected": _answer(pair.prompt, worse.text or ""),
            "probability": max(pair.probability, 1 - pair.probability),
            "annotators": len(pair.annotators),
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def write_parquet(answers: Iterable[Answer], path: Path) -> int:
    """Write one answer a row, with the columns of a snapshot; the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [answer_row(answer) for answer in answers]
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema()), path)
    return len(rows)


def _prompt(prompt: Prompt) -> Any:
    return [message.model_dump() for message in prompt.messages] if prompt.messages else prompt.text


def _answer(prompt: Prompt, text: str) -> Any:
    return [{"role": "assistant", "content": text}] if prompt.messages else text
