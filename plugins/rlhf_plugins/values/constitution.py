"""Principles for a judge who can read: words alone, no checks."""

from __future__ import annotations

from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rlhf_core.records import content_id
from rlhf_plugins.values.principles import read_list


class Article(BaseModel):
    """One principle, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    text: str | dict[str, str] = Field(min_length=1)
    """What it asks for; or one wording a language, by language code."""
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """For programs; a reader is told the words alone."""
    essential: bool = False
    """Whether nothing else counts where this one is broken."""
    checks: tuple[JsonValue, ...] = ()
    """For programs: lists of principles that have them are constitutions too."""

    def wording(self, language: str) -> str:
        """The text in `language`, else in the first language there is."""
        if isinstance(self.text, str):
            return self.text
        return self.text.get(language, next(iter(self.text.values())))


class Constitution(BaseModel):
    """Principles under a name and a version. Who changes a principle changes the version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "inline"
    version: str = "1"
    principles: tuple[Article, ...] = Field(min_length=1)

    @cached_property
    def digest(self) -> str:
        """Identity of the content, whatever version it claims to be."""
        return content_id(self.model_dump(mode="json"))

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.digest[:8]})"

    def words(self, language: str) -> str:
        """The principles as a numbered list."""
        lines = []
        for number, article in enumerate(self.principles, start=1):
            weighty = " (This one above all.)" if article.essential else ""
            lines.append(f"{number}. {article.wording(language)}{weighty}")
        return "\n".join(lines)


def load_constitution(source: str | Constitution) -> Constitution:
    """The constitution `source`: the name of a packaged list, a path to a YAML file, or one already read.

    Raises PipelineError where there is none, or where it is not one.
    """
    return read_list(source, Constitution, "name and text")
