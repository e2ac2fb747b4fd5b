"""A written, versioned list of principles, and how well a sample keeps each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlhf_core import Prompt, Sample
from rlhf_core.errors import PipelineError
from rlhf_core.records import content_id
from rlhf_plugins.values.checks import Check, bind

PACKAGED = Path(__file__).parent
"""Where the lists that come with the package are."""


class CheckUse(BaseModel):
    """A check with its parameters: `{check: lexicon_absent, words: [shocking], each: 0.3}`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    check: str
    """Name of a check in `rlhf_plugins.values.checks`."""

    @cached_property
    def bound(self) -> Check:
        """The check, ready to call."""
        import rlhf_plugins.newsroom.judge  # noqa: F401  registers the newsroom's own check

        return bind(self.check, self.model_extra or {})

    @model_validator(mode="after")
    def _fits(self) -> CheckUse:
        _ = self.bound
        return self


class Principle(BaseModel):
    """One value: what it says to people, and the checks that measure it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    text: str | dict[str, str] = ""
    """What it asks for, in words; or one wording a language, by language code."""
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    essential: bool = False
    """Whether the other principles count only as far as this one is kept: a headline that is garbage earns nothing by
    being short and calm."""
    checks: tuple[CheckUse, ...] = Field(min_length=1)
    """The principle's score is the product of its checks."""

    def score(self, prompt: Prompt, sample: Sample) -> float:
        """How well the sample keeps the principle."""
        return math.prod(use.bound(prompt, sample) for use in self.checks)


class PrincipleList(BaseModel):
    """Principles under a name and a version. Who changes a principle changes the version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "inline"
    version: str = "1"
    principles: tuple[Principle, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct_names(self) -> PrincipleList:
        names = [principle.name for principle in self.principles]
        if len(set(names)) < len(names):
            raise ValueError("two principles have the same name")
        return self

    @cached_property
    def digest(self) -> str:
        """Identity of the content, whatever version it claims to be."""
        return content_id(self.model_dump(mode="json"))

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.digest[:8]})"

    def reweighted(self, weights: Mapping[str, float]) -> PrincipleList:
        """The same list with other weights. Raises PipelineError on a name that is not in it."""
        names = [principle.name for principle in self.principles]
        for name in weights:
            if name not in names:
                close = get_close_matches(name, names, n=1)
                raise PipelineError(
                    f"there is no principle {name!r} in the list {self.name!r} to weigh",
                    remedy=f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}.",
                )
        principles = [
            principle.model_copy(update={"weight": weights.get(principle.name, principle.weight)})
            for principle in self.principles
        ]
        return PrincipleList(name=self.name, version=self.version, principles=tuple(principles))

    def scores(self, prompt: Prompt, sample: Sample) -> dict[str, float]:
        """Score of each principle by name."""
        return {principle.name: principle.score(prompt, sample) for principle in self.principles}

    def points(self, scores: Mapping[str, float]) -> dict[str, float]:
        """What each principle earns: its score times its weight, times the scores of all essential ones.

        The points of a sample add up to its value.
        """
        gate = math.prod(scores[principle.name] for principle in self.principles if principle.essential)
        return {principle.name: principle.weight * scores[principle.name] * gate for principle in self.principles}


L = TypeVar("L", bound=BaseModel)


def own_file(source: str | BaseModel) -> tuple[Path, ...]:
    """The file of a list that is neither packaged nor written out in place; nothing otherwise."""
    is_path = isinstance(source, str) and (source.endswith((".yaml", ".yml")) or "/" in source)
    return (Path(str(source)),) if is_path else ()


def load(source: str | PrincipleList) -> PrincipleList:
    """The list `source`: the name of a packaged one (`newsroom`), or a path to a YAML file, or a list already read.

    Raises PipelineError where there is no such list, or where it is not one.
    """
    return read_list(source, PrincipleList, "name, text, weight and checks")


def read_list(source: str | L, kind: type[L], fields: str) -> L:
    """`load`, for a list of any `kind` whose principles have `fields`."""
    if not isinstance(source, str):
        return source
    path = next(iter(own_file(source)), PACKAGED / f"{source}.yaml")
    if not path.is_file():
        names = ", ".join(sorted(path.stem for path in PACKAGED.glob("*.yaml")))
        raise PipelineError(
            f"there is no list of principles {source!r}",
            remedy=f"Name a packaged list ({names}) or the path of a YAML file.",
        )
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return kind.model_validate(content)
    except yaml.YAMLError as error:
        raise PipelineError(f"not a YAML file: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PipelineError(
            f"{place}: {first['msg']}" if place else first["msg"],
            where=str(path),
            remedy=f"A list of principles has a name, a version, and principles with {fields}.",
        ) from error
