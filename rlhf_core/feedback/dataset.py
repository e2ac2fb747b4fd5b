"""Feedback as learners see it: an immutable set of answers, split by prompt, turned into pairs and ratings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import Any, NamedTuple, cast

from rlhf_core.feedback.aggregate import soft_label, weighed_labels
from rlhf_core.feedback.convert import ranking_pairs, rating_pairs
from rlhf_core.feedback.rows import ANSWERS_FILE, read_answers
from rlhf_core.records import Answer, Comparison, Prompt, Ranking, Rating, Sample, Split
from rlhf_core.splits import split_of


class Pair(NamedTuple):
    """Two samples of one prompt, and which is better by all answers together."""

    prompt: Prompt
    first: Sample
    second: Sample
    probability: float
    """P(first is better) in [0, 1]: the mean over the answers, or with unequal weights (see `FeedbackSet.pairs`)."""
    weight: float
    """Number of answers behind it."""
    annotators: tuple[str, ...]
    """Who gave them, in alphabetical order."""


class Rated(NamedTuple):
    """A sample with its mean rating on one criterion."""

    prompt: Prompt
    sample: Sample
    score: float
    """Mean in [0, 1]: 0 is the low and 1 the high end of the scale."""
    criterion: str
    n: int
    """Number of ratings."""


class FeedbackSet:
    """A fixed set of answers in a fixed order. This class holds them in memory; `open` gives one that stays on disk."""

    def __init__(self, answers: Iterable[Answer] = ()) -> None:
        self._answers: Sequence[Answer] = sorted(answers, key=_place)

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> FeedbackSet:
        """The set of these answers, each counted once."""
        return FeedbackSet({answer.feedback.id: answer for answer in answers}.values())

    @classmethod
    def open(cls, folder: Path) -> FeedbackSet:
        """The snapshot in `folder`, memory-mapped through `datasets`: opening it reads next to nothing."""
        from datasets import Dataset

        return _StoredSet(Dataset.from_file(str(Path(folder) / ANSWERS_FILE)).data)

    def __len__(self) -> int:
        return len(self._answers)

    def answers(self) -> Iterator[Answer]:
        """The answers in the order of question, annotator, revision; whatever order they came in."""
        return iter(self._answers)

    @cached_property
    def questions(self) -> int:
        """Number of different questions."""
        return len({answer.feedback.question_id for answer in self._answers})

    def kinds(self) -> Counter[str]:
        """Number of answers of each kind."""
        return Counter(answer.feedback.kind for answer in self._answers)

    def annotators(self) -> Counter[str]:
        """Number of answers of each annotator."""
        return Counter(answer.feedback.annotator for answer in self._answers)

    def split(self, name: Split) -> FeedbackSet:
        """The answers on prompts of one split."""
        return FeedbackSet(answer for answer in self._answers if split_of(answer.question.prompt) == name)

    def only(self, *kinds: str) -> FeedbackSet:
        """The answers of the named kinds."""
        return FeedbackSet(answer for answer in self._answers if answer.feedback.kind in kinds)

    def pairs(self, tie_below: float = 0.0, partners: int = 4, weigh: bool = False) -> list[Pair]:
        """What comparisons, rankings and ratings say about pairs of samples: one soft label for each unordered pair.

        Two ratings imply a comparison where the annotator, the criterion, the split and the prompt's *content* are the
        same (prompts that differ in their group only are one prompt); normalised scores at most `tie_below` apart are
        a tie. Where one annotator rated more than 2 * `partners` + 1 samples of a prompt, each is paired with
        `partners` others, in the order of their ids. Pairs of equal content are left out. `first` is the sample with
        the smaller id, so the side carries no information; the pairs are in the order of their ids.

        A label is the mean of the answers; with `weigh`, annotators count by how reliable their answers in this set
        show them to be (`aggregate.weighed_labels`).
        """
        votes: dict[tuple[str, str], _Votes] = {}
        rated: dict[tuple[str, str, str, str], dict[str, _Score]] = defaultdict(dict)

        def vote(prompt: Prompt, a: Sample, b: Sample, probability: float, annotator: str) -> None:
            if a.text == b.text and a.trajectory == b.trajectory:
                return
            if a.id > b.id:
                a, b, probability = b, a, 1 - probability
            votes.setdefault((a.id, b.id), _Votes(prompt, a, b, [])).add(probability, annotator)

        for answer in self.only("comparison", "ranking", "rating").answers():
            question, feedback = answer.question, answer.feedback
            samples = {sample.id: sample for sample in question.samples}
            if isinstance(feedback, Comparison):
                first, second = samples[feedback.first], samples[feedback.second]
                vote(question.prompt, first, second, feedback.probability, feedback.annotator)
            elif isinstance(feedback, Ranking):
                for i, j, probability in ranking_pairs(feedback.ranks):
                    first, second = samples[feedback.samples[i]], samples[feedback.samples[j]]
                    vote(question.prompt, first, second, probability, feedback.annotator)
            elif isinstance(feedback, Rating):
                key = (split_of(question.prompt), question.prompt.content, feedback.annotator, feedback.criterion)
                score = _Score(question.prompt, samples[feedback.sample], feedback.criterion, [])
                rated[key].setdefault(feedback.sample, score).scores.append(_normalised(feedback))
        for (_, _, annotator, _), by_sample in sorted(rated.items()):
            scores = [by_sample[sample_id] for sample_id in sorted(by_sample)]
            means = [score.mean for score in scores]
            for i, j, probability in rating_pairs(means, partners=partners, tie_below=tie_below):
                vote(scores[i].prompt, scores[i].sample, scores[j].sample, probability, annotator)
        if not weigh:
            return [votes[key].pair() for key in sorted(votes)]
        weighed = weighed_labels({key: votes[key].said for key in sorted(votes)})
        return [votes[key].pair()._replace(probability=weighed[key]) for key in sorted(votes)]

    def ratings(self) -> list[Rated]:
        """The mean rating of each sample on each criterion, in the order of their ids."""
        rated: dict[tuple[str, str], _Score] = {}
        for answer in self.only("rating").answers():
            rating = cast(Rating, answer.feedback)
            sample = next(sample for sample in answer.question.samples if sample.id == rating.sample)
            score = _Score(answer.question.prompt, sample, rating.criterion, [])
            rated.setdefault((rating.sample, rating.criterion), score).scores.append(_normalised(rating))
        return [rated[key].rated() for key in sorted(rated)]

    def demonstrations(self) -> list[Answer]:
        """The experts' own answers."""
        return list(self.only("demonstration").answers())


class _StoredSet(FeedbackSet):
    """Rows of a memory-mapped table; they become records only as they are asked for."""

    def __init__(self, table: Any, chosen: Any = None) -> None:
        import numpy as np

        self._table = table
        # A byte a row of the whole table: filtering it batch by batch reads the file in order and copies little.
        self._chosen = np.ones(table.num_rows, dtype=bool) if chosen is None else chosen

    def __len__(self) -> int:
        return int(self._chosen.sum())

    def answers(self) -> Iterator[Answer]:
        return read_answers(self._batches())

    def _batches(self) -> Iterator[Any]:
        start = 0
        for batch in self._table.to_batches():
            chosen = self._chosen[start : start + batch.num_rows]
            start += batch.num_rows
            if chosen.any():
                yield batch.filter(chosen)

    @cached_property
    def questions(self) -> int:
        return len(self._column("question_id").unique())

    def kinds(self) -> Counter[str]:
        return self._count("kind")

    def annotators(self) -> Counter[str]:
        return self._count("annotator")

    def split(self, name: Split) -> FeedbackSet:
        return self._where("split", name)

    def only(self, *kinds: str) -> FeedbackSet:
        return self._where("kind", *kinds)

    def _column(self, name: str) -> Any:
        return self._table.column(name).filter(self._chosen)

    def _count(self, name: str) -> Counter[str]:
        return Counter({row["values"]: row["counts"] for row in self._column(name).value_counts().to_pylist()})

    def _where(self, name: str, *values: str) -> FeedbackSet:
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.is_in(self._table.column(name), value_set=pa.array(values, pa.string()))
        return _StoredSet(self._table, self._chosen & found.to_numpy())


@dataclass
class _Votes:
    """The answers about one unordered pair of samples."""

    prompt: Prompt
    first: Sample
    second: Sample
    said: list[tuple[str, float]]
    """Annotator and stated probability of each answer."""

    def add(self, probability: float, annotator: str) -> None:
        self.said.append((annotator, probability))

    def pair(self) -> Pair:
        probability, weight = soft_label([probability for _, probability in self.said])
        annotators = tuple(sorted({annotator for annotator, _ in self.said}))
        return Pair(self.prompt, self.first, self.second, probability, weight, annotators)


@dataclass
class _Score:
    """The ratings of one sample on one criterion."""

    prompt: Prompt
    sample: Sample
    criterion: str
    scores: list[float]

    @property
    def mean(self) -> float:
        return fsum(self.scores) / len(self.scores)

    def rated(self) -> Rated:
        return Rated(self.prompt, self.sample, self.mean, self.criterion, len(self.scores))


def _normalised(rating: Rating) -> float:
    return (rating.score - rating.low) / (rating.high - rating.low)


def _place(answer: Answer) -> tuple[str, str, int, str]:
    feedback = answer.feedback
    return feedback.question_id, feedback.annotator, feedback.revision, feedback.id
