"""What labelling programs export, as prompts, demonstrations and feedback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from rlhf_core import TEXT, Answer, Comparison, DataSource, Demonstration, Feedback, PluginConfig, Prompt, Question
from rlhf_core.errors import DataError
from rlhf_core.feedback.forms import Criterion, Form
from rlhf_core.feedback.lettered import ANSWER, RANKING, Said, Unreadable, feedback_of, lettered
from rlhf_core.records import Modality, Ranking, Rating, Sample, Skip
from rlhf_plugins.tabular.cells import BadCell, text_of
from rlhf_plugins.tabular.dialogue import read_messages
from rlhf_plugins.tabular.rows import missing_file

SIDES = {"left": "A is better", "right": "B is better"}
LISTED = 5
"""How many unreadable answers an error names."""


class ExportConfig(PluginConfig):
    """The file, and what its fields are called."""

    path: Path
    """The exported JSON file."""
    prompt: str = "prompt"
    """Field that holds the prompt: a text, or a list of chat messages."""
    samples: tuple[str, ...] = ()
    """Fields that hold the samples, in the order that answers speak of them; where empty, A, B, C, … (or a, b, c, …)
    as far as they exist."""
    names: dict[str, str] = {}
    """What the file calls the answers -> what they are: `better`, `ranking`, `answer`, `edited`, `comment`, or
    `rating_A_0` for the rating of the first sample on the first criterion."""
    choices: dict[str, str] = {}
    """What the file calls the choices of a pair -> `A is better`, `A is slightly better`, `both are equally good`,
    `both are bad`, `B is slightly better` or `B is better`. Label Studio's `left` and `right` are known."""
    criteria: tuple[str, ...] = ()
    """Names of the rating's criteria, in order; those that the file names where empty."""
    low: int = 1
    """Low end of the rating scale, where the file does not say."""
    high: int = 5
    """High end of it."""
    broken: Literal["stop", "skip"] = "stop"
    """stop: an unreadable answer is an error that lists them; skip: the others are used."""
    limit: int | None = Field(None, ge=1)
    """Stop after so many tasks."""


class Task(NamedTuple):
    """One exported question."""

    data: Mapping[str, Any]
    said: list[Said]


class ExportedAnswers(DataSource):
    """Base of data sources that read a labelling program's export."""

    modality: ClassVar[frozenset[Modality]] = TEXT
    program: ClassVar[str]
    Config = ExportConfig

    @classmethod
    def yields(cls, config: Any) -> frozenset[type[Feedback]]:
        """What the file holds, only reading it could tell."""
        return frozenset({Comparison, Ranking, Rating})

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The file."""
        return (config.path,)

    def task(self, item: Mapping[str, Any]) -> Task:
        """What one item of the file holds. Raises KeyError, TypeError or ValueError where it is none."""
        raise NotImplementedError

    def prompts(self) -> Iterator[Prompt]:
        """Every prompt once, in the order of the file."""
        seen: set[str] = set()
        for question, _ in self._read():
            if question.prompt.id not in seen:
                seen.add(question.prompt.id)
                yield question.prompt

    def demonstrations(self) -> Iterator[Answer]:
        """The annotators' own answers, edited ones included."""
        for question, given in self._read():
            bare = Question(prompt=question.prompt)
            for each in given:
                if isinstance(each, Demonstration):
                    yield Answer(question=bare, feedback=each.model_copy(update={"question_id": bare.id}))

    def feedback(self) -> Iterator[Answer]:
        """Comparisons, rankings and ratings; what was skipped says nothing."""
        for question, given in self._read():
            for each in given:
                if not isinstance(each, Demonstration | Skip):
                    yield Answer(question=question, feedback=each)

    def _read(self) -> Iterator[tuple[Question, list[Feedback]]]:
        problems: list[str] = []
        for number, item in enumerate(self._items()[: self.config.limit], 1):
            try:
                task = self.task(item)
                question = self._question(task.data)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"item {number}: {type(error).__name__}: {error}")
                continue
            given: list[Feedback] = []
            for said in task.said:
                try:
                    given += self._given(question, task.data, said)
                except Unreadable as error:
                    problems.append(f"item {number}, {said.who}: {error}")
            yield question, given
        if problems and self.config.broken == "stop":
            listed = "\n".join(f"  {problem}" for problem in problems[:LISTED])
            raise DataError(
                f"{len(problems)} answers or items cannot be read:\n{listed}",
                where=str(self.config.path),
                remedy="Check `prompt`, `samples`, `names` and `choices`, or use the others with `broken: skip`.",
            )
        if problems:
            self.run.note(f"{self.config.path}: {len(problems)} answers or items left out (the first: {problems[0]})")

    def _items(self) -> list[Any]:
        path = self.config.path.expanduser()
        if not path.is_file():
            raise missing_file(path)
        try:
            found = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"this is no JSON file in UTF-8: {error}", where=str(path)) from error
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
        if not isinstance(found, list):
            raise DataError(f"this is no export of {self.program}: a list of items is expected.", where=str(path))
        return found

    def _question(self, data: Mapping[str, Any]) -> Question:
        prompt_cell = data[self.config.prompt]
        if isinstance(prompt_cell, list):
            prompt = Prompt(messages=tuple(read_messages(prompt_cell, self.config.prompt)))
        else:
            prompt = Prompt(text=text_of(prompt_cell, self.config.prompt))
        names = self.config.samples or tuple(
            next(name for name in (letter, letter.lower()) if name in data)
            for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
            if letter in data or letter.lower() in data
        )
        samples = tuple(Sample(prompt_id=prompt.id, text=text_of(data[name], name)) for name in names)
        if len({sample.id for sample in samples}) < len(samples):
            raise BadCell("two samples are the same text")
        return Question(prompt=prompt, samples=samples)

    def _given(self, question: Question, data: Mapping[str, Any], said: Said) -> list[Feedback]:
        fields = {self.config.names.get(name, name): value for name, value in said.fields.items()}
        if isinstance(fields.get("better"), str):
            words = fields["better"]
            fields["better"] = self.config.choices.get(words) or SIDES.get(words, words)
        if isinstance(fields.get(RANKING), list):
            fields[RANKING] = [str(letter).upper() for letter in fields[RANKING]]
        ratings = any(name.startswith("rating_") for name in fields)
        criteria = self.config.criteria or tuple(data.get("criteria") or ("overall",))
        form = Form.model_construct(
            kind="rating" if ratings else "writing" if ANSWER in fields else "preference",
            criteria=tuple(Criterion(name=name) for name in criteria),
            low=int(data.get("low", self.config.low)),
            high=int(data.get("high", self.config.high)),
        )
        given = feedback_of(form, question, lettered(question.samples), said._replace(fields=fields))
        return [each.model_copy(update={"source": "person"}) for each in given]


def moment(text: Any) -> datetime | None:
    """An ISO 8601 moment, in UTC where it does not say; None where there is none."""
    if not isinstance(text, str) or not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
