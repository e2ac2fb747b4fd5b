"""Reading a pipeline file: YAML in, a checked `Pipeline` out, every mistake with its line.

Paths inside a pipeline are left as they are written: they are relative to the directory the command runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.config_errors import explain
from rlhf_core.pipeline.parts import ChosenPlugin, Misfit, choose, dotted
from rlhf_core.pipeline.tuning import misfits_of_tuning
from rlhf_core.pipeline.yaml_source import Document
from rlhf_core.plugins.registry import Registry
from rlhf_core.plugins.slots import Loc


class Problem(NamedTuple):
    """A mistake in a pipeline: where it stands, what is wrong, what to do."""

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}  {self.what}" if self.where else self.what
        return f"{text}\n    {self.remedy}" if self.remedy else text


class PipelineProblems(PipelineError):
    """All mistakes of a pipeline at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        if len(problems) == 1:
            super().__init__(problems[0].what, where=problems[0].where, remedy=problems[0].remedy)
        else:
            super().__init__("\n".join(map(str, problems)))


class LoadedPipeline:
    """A pipeline with its file, its plugins and the line of each part."""

    def __init__(self, pipeline: Pipeline, document: Document, chosen: Sequence[ChosenPlugin]) -> None:
        self.pipeline = pipeline
        self.path = document.path
        self.chosen = list(chosen)
        """Every plugin that the pipeline uses, those that plugins use included."""
        self._document = document

    def where(self, loc: Loc) -> str:
        """`pipeline.yaml:22` for a path such as `("ask", "annotators", 0)`."""
        return self._document.where(loc)


def load_pipeline(path: Path, overrides: Sequence[str] = (), registry: Registry | None = None) -> LoadedPipeline:
    """The pipeline in the YAML file `path`, with `overrides` (`a.b.0=value`) applied first.

    Imports the classes of the plugins that the file names, to check their configuration, and runs nothing.
    Raises PipelineError (PipelineProblems where there may be several) naming file and line.
    """
    document = Document(Path(path))
    for assignment in overrides:
        document.override(assignment)
    try:
        pipeline = Pipeline.model_validate(document.data)
    except ValidationError as error:
        complaints = explain(error, Pipeline, document.data)
        raise PipelineProblems(
            [problem(document, Misfit(complaint.loc, complaint.what)) for complaint in complaints]
        ) from error
    registry = registry or Registry()
    chosen, misfits = choose(pipeline, registry)
    # A reward model that does not fit as it is written would be blamed on every field of the search space.
    misfits = misfits or misfits_of_tuning(pipeline, registry)
    if misfits:
        raise PipelineProblems([problem(document, misfit) for misfit in misfits])
    return LoadedPipeline(pipeline, document, chosen)


def problem(document: Document, misfit: Misfit) -> Problem:
    """A misfit, with its line."""
    place = dotted(misfit.loc)
    return Problem(document.where(misfit.loc), f"{place}: {misfit.what}" if place else misfit.what, misfit.remedy)
