"""A row of a snapshot: an answer with everything needed to learn from it, in Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rlhf_core.records import Answer, Question, feedback_from
from rlhf_core.splits import split_of

if TYPE_CHECKING:
    import pyarrow as pa

ANSWERS_FILE = "answers.arrow"


def arrow_schema() -> pa.Schema:
    """Columns of a snapshot. The JSON columns hold the whole records; the others are for filtering without parsing."""
    import pyarrow as pa

    return pa.schema(
        {
            "feedback_id": pa.string(),
            "question_id": pa.string(),
            "prompt_id": pa.string(),
            "sample_ids": pa.list_(pa.string()),
            "annotator": pa.string(),
            "source": pa.string(),
            "kind": pa.string(),
            "round": pa.int32(),
            "split": pa.string(),
            "created_at": pa.string(),
            "feedback": pa.string(),
            "question": pa.string(),
        }
    )


def answer_row(answer: Answer) -> dict[str, Any]:
    """The row of an answer that is in no store; its round is the newest of its samples'."""
    question, feedback = answer.question, answer.feedback
    return {
        "feedback_id": feedback.id,
        "question_id": question.id,
        "prompt_id": question.prompt.id,
        "sample_ids": [sample.id for sample in question.samples],
        "annotator": feedback.annotator,
        "source": feedback.source,
        "kind": feedback.kind,
        "round": max((sample.round for sample in question.samples), default=0),
        "split": split_of(question.prompt),
        "created_at": feedback.given_at,
        "feedback": feedback.model_dump_json(),
        "question": question.model_dump_json(),
    }


def read_answers(batches: Iterable[pa.RecordBatch]) -> Iterator[Answer]:
    """The answers in `batches` of snapshot rows.

    Ids come from the columns and are not computed again: rows were checked when the store accepted them.
    """
    last: Question | None = None
    for batch in batches:
        columns = [
            batch.column(name).to_pylist()
            for name in ("question_id", "sample_ids", "question", "feedback_id", "feedback")
        ]
        for question_id, sample_ids, question_json, feedback_id, feedback_json in zip(*columns, strict=True):
            if last is None or last.id != question_id:
                last = known_question(question_json, question_id, sample_ids)
            yield known_answer(last, feedback_json, feedback_id)


def known_question(text: str, question_id: str, sample_ids: Iterable[str]) -> Question:
    """A question from its JSON, with the ids that it and its samples are known to have."""
    question = Question.model_validate_json(text)
    question.__dict__["id"] = question_id
    for sample, sample_id in zip(question.samples, sample_ids, strict=True):
        sample.__dict__["id"] = sample_id
    return question


def known_answer(question: Question, text: str, feedback_id: str) -> Answer:
    """An answer to `question` from its feedback's JSON, with the id that it is known to have."""
    feedback = feedback_from.validate_json(text)
    feedback.__dict__["id"] = feedback_id
    return Answer.model_construct(question=question, feedback=feedback)
