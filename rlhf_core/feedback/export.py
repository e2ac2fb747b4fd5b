"""Feedback for other programs: whole answers as JSON Lines or Parquet, pairs for TRL and in Anthropic's HH format, and
tasks of Label Studio and records of Argilla with their answers."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rlhf_core.feedback.dataset import FeedbackSet, Pair
from rlhf_core.feedback.forms import Criterion, Form
from rlhf_core.feedback.lettered import (
    BETTER,
    RANKING,
    by_letter,
    fields_of,
    shown_prompt,
    shown_text,
)
from rlhf_core.feedback.rows import answer_row, arrow_schema
from rlhf_core.records import Answer, Message, Prompt, Question, Rating

HH_ROLES = {"system": "Human", "user": "Human", "assistant": "Assistant"}
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def jsonl(answers: Iterable[Answer]) -> Iterator[str]:
    """One answer a line, with its question: what `Answer.model_validate_json` reads."""
    for answer in answers:
        yield answer.model_dump_json() + "\n"


def trl_preferences(answers: Iterable[Answer]) -> Iterator[str]:
    """One decided pair a line: prompt, chosen, rejected, as TRL's DPO and reward trainers read them.

    Several answers to a pair are one line, decided by their mean; ties are left out. Prompts of messages give the
    conversational format. Control tasks have no texts and are left out, too.
    """
    for pair, better, worse in _decided(answers):
        row = {
            "prompt": _prompt(pair.prompt),
            "chosen": _answer(pair.prompt, better),
            "rejected": _answer(pair.prompt, worse),
            "probability": max(pair.probability, 1 - pair.probability),
            "annotators": len(pair.annotators),
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def hh_preferences(answers: Iterable[Answer]) -> Iterator[str]:
    r"""One decided pair a line: `chosen` and `rejected` dialogues as `\n\nHuman: … \n\nAssistant: …` (Bai et al. 2022).

    The pairs are those of `trl_preferences`, without those that hold such a turn inside a text: the format could not
    tell them apart. It knows no system prompt; one is the beginning of the first turn.
    """
    for pair, better, worse in _decided(answers):
        turns = pair.prompt.messages or (Message(role="user", content=pair.prompt.text or ""),)
        texts = [turn.content for turn in turns]
        if any(_HH_TURN.search(f"\n\n{text}") for text in (*texts, better, worse)):
            continue
        asked = ""
        for turn, before in zip(turns, (None, *turns), strict=False):
            same = before is not None and HH_ROLES[before.role] == HH_ROLES[turn.role]
            asked += f"\n\n{turn.content}" if same else f"\n\n{HH_ROLES[turn.role]}: {turn.content}"
        row = {"chosen": f"{asked}\n\nAssistant: {better}", "rejected": f"{asked}\n\nAssistant: {worse}"}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def label_studio_tasks(answers: Iterable[Answer]) -> Iterator[str]:
    """A JSON array of Label Studio tasks with annotations, one a question, whose answers must follow each other.

    The fields are those that the annotator `label_studio` asks for; a result's `meta` names who gave it, since Label
    Studio takes annotations only of accounts that it has. Control tasks are left out.
    """
    yield from _array(_label_studio_task(question, given) for question, given in _by_question(answers))


def argilla_records(answers: Iterable[Answer]) -> Iterator[str]:
    """A JSON array of Argilla records with responses, one a question, as Argilla's `records.to_json` writes them.

    The fields are those that the annotator `argilla` asks for. Argilla names annotators by UUIDs: theirs are made from
    their names, which stand in the record's metadata. A chat is one text. Control tasks
    are left out.
    """
    yield from _array(_argilla_record(question, given) for question, given in _by_question(answers))


EXPORTS: dict[str, tuple[str, Callable[[Iterable[Answer]], Iterator[str]]]] = {
    "jsonl": ("answers.jsonl", jsonl),
    "trl": ("preferences-trl.jsonl", trl_preferences),
    "hh": ("preferences-hh.jsonl", hh_preferences),
    "label_studio": ("label-studio.json", label_studio_tasks),
    "argilla": ("argilla.json", argilla_records),
}
"""Format -> the file's usual name, and what writes it in pieces. Parquet is no text: `write_parquet`."""


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


def _decided(answers: Iterable[Answer]) -> Iterator[tuple[Pair, str, str]]:
    """Pairs of texts of which one is better by the mean of the answers, with the better and the worse text."""
    for pair in FeedbackSet.of(answers).pairs():
        first, second = pair.first.text, pair.second.text
        if pair.probability != 0.5 and first is not None and second is not None:
            yield (pair, first, second) if pair.probability > 0.5 else (pair, second, first)


def _by_question(answers: Iterable[Answer]) -> Iterator[tuple[Question, dict[str, list[Answer]]]]:
    """Each question of texts with its answers by annotator."""
    for _, group in groupby(answers, key=lambda answer: answer.question.id):
        listed = list(group)
        question = listed[0].question
        if all(sample.text is not None for sample in question.samples):
            given: dict[str, list[Answer]] = {}
            for answer in listed:
                given.setdefault(answer.feedback.annotator, []).append(answer)
            yield question, given


def _described(question: Question, given: dict[str, list[Answer]]) -> tuple[Form, list[str]]:
    """The form that the answers belong to, and the criteria of its ratings."""
    ratings = [a.feedback for each in given.values() for a in each if isinstance(a.feedback, Rating)]
    criteria = sorted({rating.criterion for rating in ratings})
    if not ratings:
        return Form(), []
    low, high = int(min(rating.low for rating in ratings)), int(max(rating.high for rating in ratings))
    named = tuple(Criterion(name=name) for name in criteria)
    return Form.model_construct(kind="rating", criteria=named, low=low, high=high), criteria


def _label_studio_task(question: Question, given: dict[str, list[Answer]]) -> dict[str, Any]:
    form, criteria = _described(question, given)
    letters = by_letter(question)
    texts = {letter: shown_text(sample.text) for letter, sample in letters.items()}
    data: dict[str, Any] = {"question": question.id, "prompt": shown_prompt(question), **texts}
    if form.view(question) == "ranking":
        data["items"] = [{"id": letter, "title": letter, "body": text} for letter, text in texts.items()]
    if criteria:
        data |= {"criteria": criteria, "low": form.low, "high": form.high}
    annotations = []
    for who, answers in sorted(given.items()):
        fields = fields_of((answer.feedback for answer in answers), letters, criteria)
        results = [{**_result(name, value, form.low), "meta": {"annotator": who}} for name, value in fields.items()]
        skipped = {"was_cancelled": True} if not results else {}
        annotations.append({"result": results, "created_at": answers[0].feedback.given_at or None, **skipped})
    return {"data": data, "annotations": annotations}


def _result(name: str, value: Any, low: int) -> dict[str, Any]:
    """A field as Label Studio's own result."""
    if name == BETTER:
        return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}
    if name == RANKING:
        order = sorted(value, key=lambda letter: (value[letter], letter))
        return {"from_name": name, "to_name": "items", "type": "ranker", "value": {"ranker": order}}
    if name.startswith("rating_"):
        stars = value - low + 1
        return {"from_name": name, "to_name": name.split("_")[1], "type": "rating", "value": {"rating": stars}}
    return {"from_name": name, "to_name": "prompt", "type": "textarea", "value": {"text": [value]}}


def _argilla_record(question: Question, given: dict[str, list[Answer]]) -> dict[str, Any]:
    form, criteria = _described(question, given)
    letters = by_letter(question)
    texts = {letter.lower(): shown_text(sample.text) for letter, sample in letters.items()}
    responses: dict[str, list[dict[str, Any]]] = {}
    names: dict[str, Any] = {"criteria": criteria, "low": form.low, "high": form.high} if criteria else {}
    for who, answers in sorted(given.items()):
        user = str(uuid.uuid5(uuid.NAMESPACE_URL, f"rlhf:annotator:{who}"))
        for name, value in fields_of((answer.feedback for answer in answers), letters, criteria).items():
            names[user] = who
            if name == RANKING:
                value = [{"value": letter, "rank": rank} for letter, rank in value.items()]
            responses.setdefault(name.lower(), []).append({"value": value, "user_id": user})
    fields = {"prompt": shown_prompt(question), **texts}
    return {"id": question.id, "fields": fields, "metadata": names, "suggestions": {}, "responses": responses}


def _array(items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A JSON array, one item a line."""
    before = "["
    for item in items:
        yield f"{before}\n{json.dumps(item, ensure_ascii=False)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"
