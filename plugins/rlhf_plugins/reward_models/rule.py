"""Reward model `rule`: points for what regular expressions and word lists find."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from rlhf_core.errors import DataError
from rlhf_core.plugins import TEXT, PluginConfig, RewardModel, Scores
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.reward_models._learning import text_of


class Pattern(PluginConfig):
    """One rule; exactly one of `pattern` and `words`."""

    name: str = Field(min_length=1)
    """The criterion it is reported as."""
    pattern: str | None = None
    """A regular expression, searched anywhere in the answer; `(?i)` at its start ignores case. It is Python's, which
    can take very long on expressions such as `(a+)+b`: write none that repeats what repeats."""
    words: Path | None = None
    """A text file with a word or phrase in each line; found as whole words, in any case. Lines with # are comments."""
    points: float = 1.0
    """What a hit is worth; negative for what is unwanted."""
    count: bool = False
    """Every hit counts. Otherwise one is as good as many."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.pattern is None) == (self.words is None):
            raise ValueError("a rule has either a `pattern` or a file of `words`")
        return self


class Rule(RewardModel):
    """Adds up points for what is found in an answer. `criteria` holds, for each rule, how often it was found (at most
    once without `count`), so that a word list also serves as a scorer of toxicity.
    """

    modality = TEXT

    class Config(PluginConfig):
        """The rules."""

        rules: tuple[Pattern, ...] = Field(min_length=1)
        """What is looked for."""
        max_characters: int = Field(20_000, ge=1)
        """Only so much of an answer is read: answers are hostile input."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The word lists."""
        return tuple(rule.words for rule in config.rules if rule.words is not None)

    def set_up(self) -> None:
        """Compile the rules. Raises DataError where a word list cannot be read."""
        self.compiled = [(rule, re.compile(rule.pattern or _any_word(rule.words))) for rule in self.config.rules]

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Sums of points."""
        texts = [text_of(sample, self)[: self.config.max_characters] for sample in samples]
        criteria: dict[str, list[float]] = {}
        mean = [0.0] * len(texts)
        for rule, expression in self.compiled:
            hits = [
                float(sum(1 for _ in expression.finditer(text)) if rule.count else expression.search(text) is not None)
                for text in texts
            ]
            criteria[rule.name] = [
                a + b for a, b in zip(criteria.get(rule.name, [0.0] * len(texts)), hits, strict=True)
            ]
            mean = [total + rule.points * hit for total, hit in zip(mean, hits, strict=True)]
        return Scores(mean, criteria=criteria)


def _any_word(path: Path | None) -> str:
    """An expression that finds any line of the file as whole words."""
    assert path is not None
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the word list: {error}", where=str(path)) from error
    words = sorted({line.strip() for line in lines if line.strip() and not line.startswith("#")}, key=len, reverse=True)
    if not words:
        raise DataError("the word list is empty", where=str(path), remedy="Write a word or phrase in each line.")
    return rf"(?i)(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)"
