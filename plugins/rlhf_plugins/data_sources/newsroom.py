"""Data source `newsroom`: made-up local news with headlines, most of them bad; needs no download."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal

from pydantic import Field, field_validator

from rlhf_core import Answer, DataSource, Demonstration, PluginConfig, Prompt, Question
from rlhf_core.plugins import TEXT
from rlhf_plugins.newsroom.generator import fill, make_article, make_facts, make_headline
from rlhf_plugins.newsroom.language import Language, Style
from rlhf_plugins.newsroom.languages import languages

ARCHIVE = "newsroom_archive"
"""The annotator behind the demonstrations."""


class Newsroom(DataSource):
    """Articles to write headlines for, and an archive of headlines in mixed styles to imitate.

    Each prompt carries its `facts` for judges (place, who, action, what, cost, day, supporters, critics, ...) and good
    headlines as `references`. Prompt number n depends on `seed`, `language` and n alone, so more prompts begin with the
    same ones.
    """

    modality = TEXT

    class Config(PluginConfig):
        """What to make."""

        prompts: int = Field(2000, ge=1, le=1_000_000)
        """How many different articles."""
        language: Literal["en", "zh", "both"] = "en"
        """English, Chinese, or each article in one of the two at random."""
        demonstrations: int = Field(4000, ge=0)
        """How many headlines the archive holds; spread evenly over the articles."""
        styles: dict[Style, float] = {"neutral": 0.2, "sensational": 0.35, "one_sided": 0.25, "false": 0.2}
        """Shares of the styles in the archive, in any unit; a style left out does not occur."""
        seed: int = 0
        """Another seed makes other articles. It is the data's own: the pipeline's seed does not change the data."""

        @field_validator("styles")
        @classmethod
        def _a_mixture(cls, styles: dict[Style, float]) -> dict[Style, float]:
            if any(share < 0 for share in styles.values()) or not sum(styles.values()) > 0:
                raise ValueError("styles must be shares of at least 0, and not all 0")
            return styles

    def prompts(self) -> Iterator[Prompt]:
        """The articles, all different."""
        seen: set[str] = set()
        for number in range(self.config.prompts):
            attempt = 0
            while (prompt := self._prompt(number, attempt)).text in seen:
                attempt += 1
            seen.add(str(prompt.text))
            yield prompt

    def demonstrations(self) -> Iterator[Answer]:
        """The archive's headlines, one article after the other. The comment names the style.

        A second headline for the same article stands in a second archive, as one annotator answers a question once.
        """
        wanted, remaining = self.config.demonstrations, self.config.prompts
        for number, prompt in enumerate(self.prompts()):
            if wanted == 0:
                return
            share = -(-wanted // remaining)
            yield from self._archive(number, prompt, share)
            wanted, remaining = wanted - share, remaining - 1

    def _prompt(self, number: int, attempt: int) -> Prompt:
        rng = self._rng("article", number, attempt)
        choice = self.config.language
        language = languages()[rng.choice(("en", "zh")) if choice == "both" else choice]
        facts = make_facts(rng, language)
        text = make_article(rng, language, facts)
        references = tuple(fill(template, language, facts) for template in language.references)
        return Prompt(text=text, facts=dict(facts), references=references)

    def _archive(self, number: int, prompt: Prompt, count: int) -> Iterator[Answer]:
        facts = {name: str(value) for name, value in prompt.facts.items()}
        language: Language = languages()[facts["language"]]
        styles: list[Style] = list(self.config.styles)
        question = Question(prompt=prompt)
        for copy in range(count):
            rng = self._rng("headline", number, copy)
            style = rng.choices(styles, weights=list(self.config.styles.values()))[0]
            demonstration = Demonstration(
                question_id=question.id,
                annotator=ARCHIVE if copy == 0 else f"{ARCHIVE}-{copy + 1}",
                source="data",
                text=make_headline(rng, language, facts, style),
                comment=style,
            )
            yield Answer(question=question, feedback=demonstration)

    def _rng(self, *key: object) -> Random:
        # A string seed is hashed with SHA-512: the same in every process.
        return Random("/".join(map(str, ("newsroom", self.config.seed, self.config.language, *key))))
