"""What `table` and `hf_dataset` share: numbered rows in, prompts, demonstrations and feedback out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from rlhf_core.errors import DataError
from rlhf_core.plugins import TEXT, DataSource
from rlhf_core.records import Answer, Feedback, Modality, Prompt, Question, Sample
from rlhf_plugins.reactions.answers import Rules, tally_comparisons, tally_reactions
from rlhf_plugins.reactions.tally import IMPRESSION, Shown, Tallies
from rlhf_plugins.tabular.cells import BadCell
from rlhf_plugins.tabular.mapping import MappingConfig
from rlhf_plugins.tabular.meaning import Meaning, Reader
from rlhf_plugins.tabular.pairs import pair_answer
from rlhf_plugins.tabular.rows import Problem, Row

LISTED = 5
"""How many broken rows an error names."""


class RowSource(DataSource):
    """A data source that understands rows by a `MappingConfig`."""

    modality: ClassVar[frozenset[Modality]] = TEXT
    Config = MappingConfig

    @classmethod
    def yields(cls, config: Any) -> frozenset[type[Feedback]]:
        """What the mapping says; nothing is read."""
        return config.yields

    def set_up(self) -> None:
        """Nothing said yet about rows left out."""
        self._noted = False

    def mapping(self) -> MappingConfig:
        """The mapping that holds for the rows."""
        return self.config

    def rows(self) -> Iterator[Row | Problem]:
        """The rows, in order."""
        raise NotImplementedError

    def place(self) -> str:
        """The file or data set, for messages."""
        raise NotImplementedError

    def unit(self) -> str:
        """What a row's number counts: line, record or row."""
        raise NotImplementedError

    def title(self) -> str:
        """Name of the annotator where neither the rows nor the config say it."""
        raise NotImplementedError

    def prompts(self) -> Iterator[Prompt]:
        """Every prompt once, in the order of the rows."""
        seen: set[bytes] = set()
        for row in self._meanings():
            if _is_new(row.prompt.id, seen):
                yield row.prompt

    def demonstrations(self) -> Iterator[Answer]:
        """The texts of the column that is imitated; a text that a prompt has twice counts once."""
        if self.mapping().imitated is None:
            return
        seen: set[bytes] = set()
        answers = _Numbered()
        for row in self._meanings():
            if row.demonstration is None or row.weight == 0:
                continue
            if _is_new(Sample(prompt_id=row.prompt.id, text=row.demonstration).id, seen):
                question = Question(prompt=row.prompt)
                fields = answers.fields(question, row.annotator, self._fields())
                feedback = question.demonstrate(row.demonstration, weight=row.weight, **fields)
                yield Answer(question=question, feedback=feedback)

    def feedback(self) -> Iterator[Answer]:
        """Ratings, comparisons and edits in the order of the rows, then what clicks and other reactions say."""
        config = self.mapping()
        if not config.yields:
            return
        columns = config.columns
        if columns.score is not None or columns.chosen is not None or columns.edited is not None:
            answers = _Numbered()
            for row in self._meanings():
                yield from self._judgements(row, config, answers)
        if config.counts_reactions:
            answers_in = tally_comparisons if config.clicks_as == "comparisons" else tally_reactions
            rules = Rules(config.min_exposures, config.max_pairs_per_group)
            yield from answers_in(self._tallies(), rules, self._fields())

    def _judgements(self, row: Meaning, config: MappingConfig, answers: _Numbered) -> Iterator[Answer]:
        if row.score is not None:
            question = Question(prompt=row.prompt, samples=(Sample(prompt_id=row.prompt.id, text=row.text),))
            scale = {"low": config.score_low, "high": config.score_high, "criterion": config.criterion}
            fields = answers.fields(question, row.annotator, self._fields())
            yield Answer(question=question, feedback=question.rate(0, row.score, **scale, **fields))
        if row.pair is not None:
            yield self._preferred(row, *row.pair, answers)
        if row.edited is not None:
            yield self._preferred(row, row.edited, row.text or "", answers)

    def _preferred(self, row: Meaning, better: str, worse: str, answers: _Numbered) -> Answer:
        chosen, rejected = (Sample(prompt_id=row.prompt.id, text=text) for text in (better, worse))
        answer = pair_answer(row.prompt, chosen, rejected, 1.0, self._fields())
        fields = answers.fields(answer.question, row.annotator, self._fields())
        return pair_answer(row.prompt, chosen, rejected, 1.0, fields)

    def _tallies(self) -> Tallies:
        """The counts of all rows; those of one group need not follow each other."""
        tallies = Tallies()
        for row in self._meanings():
            shown = Shown(row.prompt.group or row.prompt.content, row.text or "")
            if row.action is None:
                tallies.add(row.prompt, shown, IMPRESSION, row.position, row.impressions)
                tallies.add(row.prompt, shown, "click", row.position, row.clicks)
            elif row.action != "edit":
                tallies.note(row.prompt, shown, row.action, row.impression, row.position)
        if strays := tallies.settle():
            self.run.note(f"{self.place()}: {strays} reactions to impressions that the log does not hold left out")
        return tallies

    def _fields(self) -> dict[str, Any]:
        config = self.mapping()
        return {"annotator": config.annotator or self.title(), "source": config.source, "created_at": None}

    def _meanings(self) -> Iterator[Meaning]:
        """The usable rows; at the first broken one the rest is looked through for more, and reported."""
        config = self.mapping()
        reader = Reader(config)
        problems: list[Problem] = []
        broken = fine = 0
        for row in self.rows():
            problem = row if isinstance(row, Problem) else None
            if isinstance(row, Row):
                try:
                    meaning = reader.read(row.cells)
                except BadCell as error:
                    problem = Problem(row.number, str(error))
            if problem is not None:
                broken += 1
                if len(problems) < LISTED:
                    problems.append(problem)
                continue
            fine += 1
            if not broken or config.broken_rows == "skip":
                yield meaning
                if fine == config.limit:
                    break
        if broken:
            self._report(problems, broken, fine)

    def _report(self, problems: list[Problem], broken: int, fine: int) -> None:
        unit = self.unit()
        listed = "\n".join(f"  {unit} {problem.number}: {problem.what}" for problem in problems)
        more = f"\n  … and {broken - len(problems)} more" if broken > len(problems) else ""
        if not fine:
            remedy = "Check `columns`, `header` and `encoding` against the file."
            raise DataError(
                f"none of the {broken} rows can be used:\n{listed}{more}", where=self.place(), remedy=remedy
            )
        if self.config.broken_rows == "stop":
            rows = f"{broken} row{'s' if broken > 1 else ''}"
            raise DataError(
                f"{rows} cannot be used, {fine} can:\n{listed}{more}",
                where=self.place(),
                remedy=f"Mend them, or import the other {fine} with `broken_rows: skip`.",
            )
        if not self._noted:
            self._noted = True
            first = f"{unit} {problems[0].number}: {problems[0].what}"
            self.run.note(f"{self.place()}: {broken} of {broken + fine} rows left out (the first is {first})")


class _Numbered:
    """Tells several answers to one question apart.

    Where the data names who answered, a repeated answer is that person's next revision. Where it does not, each row
    is somebody's, and the second row about a question counts as a second annotator.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def fields(self, question: Question, annotator: str, fields: dict[str, Any]) -> dict[str, Any]:
        """`fields` with an annotator and a revision that no earlier answer to the question has."""
        key = bytes.fromhex(question.id) + annotator.encode()
        before = self._seen.get(key, 0)
        self._seen[key] = before + 1
        if annotator:
            return {**fields, "annotator": annotator, "revision": before}
        return {**fields, "annotator": f"{fields['annotator']} #{before + 1}"} if before else fields


def _is_new(id: str, seen: set[bytes]) -> bool:
    key = bytes.fromhex(id)
    if key in seen:
        return False
    seen.add(key)
    return True
