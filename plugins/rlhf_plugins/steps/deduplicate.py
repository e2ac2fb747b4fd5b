"""Step `deduplicate`: no prompt twice, and none in training that nearly is a test."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, PluginConfig, Step, StepJob, StepOutcome
from rlhf_core.records import Answer, Prompt, Split
from rlhf_core.records.files import DEMONSTRATIONS_FILE, PROMPTS_FILE, QUESTIONS_FILE, read_records, write_records
from rlhf_core.splits import split_of

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

LETTERS = 5
"""Length of the pieces that texts are compared by; characters, so that scripts without spaces work, too."""
PERMUTATIONS = 128
"""Numbers in a sketch; candidates are compared exactly, so that more of them would only miss fewer."""
MISSES_COUNT = (0.01, 0.99)
"""How bad a false candidate and a missed one are."""
MOST = 0.95
"""Similarity that candidates are looked for above, at most: closer to 1 an index finds hardly any."""
FIRST: dict[Split, int] = {"test": 0, "validation": 1, "train": 2}
"""Who keeps its prompt where two are alike."""
SHOWN = 3
"""Pairs that the note shows."""
WIDTH = 60


Key = tuple[str, Split]
"""A prompt's id and split: the same words may stand in two splits, since the split is no part of the identity."""


class Twin(NamedTuple):
    """A prompt that is left out, and the one that stays."""

    dropped: Prompt
    kept: Prompt
    similarity: float

    @property
    def leaks(self) -> bool:
        """Whether the one that stays is held out and this one is not, or less so."""
        return split_of(self.dropped) != split_of(self.kept)


class Deduplicate(Step):
    """Leaves out prompts that nearly equal another one, so that no test prompt is known from training.

    Of two that are alike the test split's stays, then the validation split's, then the first. Demonstrations of the
    prompts that are left out go with them, and so does feedback that came with the data where its prompt is alike one
    of another split. Texts are alike by the share of pieces of five characters that they have in common (their
    Jaccard similarity), upper and lower case and white space aside; candidates are found by MinHash (Broder 1997) and
    compared exactly.
    """

    modality = TEXT
    takes = frozenset({"data"})
    gives = "data"

    class Config(PluginConfig):
        """What counts as alike."""

        similarity: float = Field(0.8, gt=0, le=1)
        """Share of common pieces from which two prompts are alike; 1 for the same words only. Prompts that share a
        long instruction need more than the default."""

    def step(self, job: StepJob) -> StepOutcome:
        """Write the data without the twins."""
        data = job.inputs["data"]
        prompts = list(read_records(data / PROMPTS_FILE, Prompt))
        demonstrations = list(read_records(data / DEMONSTRATIONS_FILE, Answer))
        asked = self._asked(data)
        twins = self._twins(prompts, [*(each.question.prompt for each in demonstrations), *asked.values()])
        shutil.copytree(data, job.out, dirs_exist_ok=True)
        kept = write_records(job.out / PROMPTS_FILE, (prompt for prompt in prompts if _key(prompt) not in twins))
        shown = write_records(
            job.out / DEMONSTRATIONS_FILE,
            (each for each in demonstrations if _key(each.question.prompt) not in twins),
        )
        leaking = {name for name, prompt in asked.items() if (twin := twins.get(_key(prompt))) and twin.leaks}
        if leaking:
            questions = (data / QUESTIONS_FILE).read_text().split()
            text = "".join(f"{name}\n" for name in questions if name not in leaking)
            (job.out / QUESTIONS_FILE).write_text(text)
        dropped, silent = len(prompts) - kept, len(demonstrations) - shown
        self._say(twins)
        return StepOutcome(
            {
                "duplicates": Metric(value=dropped),
                "duplicates_across_splits": Metric(value=sum(twin.leaks for twin in twins.values())),
                "duplicate_demonstrations": Metric(value=silent),
                "duplicate_questions": Metric(value=len(leaking)),
            },
            f"{dropped:,} of {len(prompts):,} prompts left out, nearly equal to others",
        )

    def _asked(self, data: Path) -> dict[str, Prompt]:
        """The prompts of the questions that came answered with the data, by the questions' ids."""
        questions = (data / QUESTIONS_FILE).read_text().split()
        if not questions:
            return {}
        if not self.run.store_url:
            self.run.note("the feedback that came with the data is not looked at: there is no feedback store here")
            return {}
        from rlhf_core.feedback.store import FeedbackStore

        with FeedbackStore.open(self.run.store_url) as store:
            return {answer.question.id: answer.question.prompt for answer in store.answers(questions)}

    def _twins(self, own: Sequence[Prompt], others: Iterable[Prompt]) -> dict[Key, Twin]:
        """The prompts to leave out. `others` are those of demonstrations and feedback: one that is alike
        a prompt of its own split says no less for it.
        """
        mine = set(map(_key, own))
        once = {_key(prompt): prompt for prompt in (*own, *others)}
        ordered = sorted(once.values(), key=lambda prompt: FIRST[split_of(prompt)])
        index = _index(self.config.similarity)
        twins: dict[Key, Twin] = {}
        for place, (prompt, sketch) in enumerate(zip(ordered, _sketches(ordered), strict=True)):
            # Sorted, so that the same twin is named whatever order the index gives.
            near = (ordered[found] for found in sorted(index.query(sketch)))
            of_another = (
                each for each in near if split_of(each) != split_of(prompt) or {_key(each), _key(prompt)} <= mine
            )
            twin = self._twin(prompt, of_another)
            if twin is None:
                index.insert(place, sketch, check_duplication=False)
            else:
                twins[_key(prompt)] = twin
        return twins

    def _twin(self, prompt: Prompt, near: Iterable[Prompt]) -> Twin | None:
        pieces = _pieces(prompt)
        for other in near:
            theirs = _pieces(other)
            similarity = len(pieces & theirs) / len(pieces | theirs)
            if similarity >= self.config.similarity:
                return Twin(prompt, other, similarity)
        return None

    def _say(self, twins: Mapping[Key, Twin]) -> None:
        if not twins:
            return
        found = sorted(twins.values(), key=lambda twin: (not twin.leaks, -twin.similarity, twin.dropped.id))
        pairs = Counter(f"{split_of(twin.dropped)} like {split_of(twin.kept)}" for twin in found)
        counted = ", ".join(f"{count:,} {words}" for words, count in sorted(pairs.items()))
        shown = "; ".join(
            f"`{_short(twin.dropped)}` is like `{_short(twin.kept)}` ({twin.similarity:.2f})" for twin in found[:SHOWN]
        )
        more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        self.run.note(f"nearly equal prompts are left out ({counted}): {shown}{more}")


def _key(prompt: Prompt) -> Key:
    return prompt.id, split_of(prompt)


def _pieces(prompt: Prompt) -> set[str]:
    """All runs of `LETTERS` characters of the prompt's text."""
    text = " ".join(prompt.content.casefold().split())
    return {text[i : i + LETTERS] for i in range(max(len(text) - LETTERS + 1, 1))}


def _sketches(prompts: Iterable[Prompt]) -> Iterator[MinHash]:
    from datasketch import MinHash

    pieces = ([piece.encode() for piece in _pieces(prompt)] for prompt in prompts)
    sketches: Iterator[MinHash] = MinHash.generator(pieces, num_perm=PERMUTATIONS, seed=1)
    return sketches


def _index(similarity: float) -> MinHashLSH:
    from datasketch import MinHashLSH

    return MinHashLSH(threshold=min(similarity, MOST), num_perm=PERMUTATIONS, weights=MISSES_COUNT)


def _short(prompt: Prompt) -> str:
    text = " ".join(prompt.content.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
