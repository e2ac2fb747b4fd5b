"""A site file: where stages run, shared by the pipelines of a team or a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rlhf_core.pipeline.config_errors import explain
from rlhf_core.pipeline.file import PipelineProblems, problem
from rlhf_core.pipeline.parts import Misfit
from rlhf_core.pipeline.placement import PLACEMENT_FIELDS, Placement
from rlhf_core.pipeline.spec import Pipeline
from rlhf_core.pipeline.yaml_source import Document

SITE_VARIABLE = "RLHF_SITE"
"""Environment variable that names the site file; `--site` wins over it."""


T = TypeVar("T")


class Site(Placement):
    """One site file: what it says holds for every pipeline that doesn't say it itself."""


def load_site(path: Path) -> Site:
    """The site in the YAML file `path`.

    Raises PipelineError (PipelineProblems where there may be several) naming file and line.
    """
    document = Document(Path(path), what="site file", remedy="Name another with `--site`, or unset RLHF_SITE.")
    try:
        return Site.model_validate(document.data)
    except ValidationError as error:
        complaints = explain(error, Site, document.data)
        raise PipelineProblems(
            [problem(document, Misfit(complaint.loc, complaint.what)) for complaint in complaints]
        ) from error


def site_of(path: Path | None) -> Site:
    """The site in the file `path`, else in the one that RLHF_SITE names; one that says nothing without either."""
    named = path or os.environ.get(SITE_VARIABLE)
    return load_site(Path(named)) if named else Site()


def with_site(pipeline: Pipeline, site: Site) -> Pipeline:
    """`pipeline` with what it leaves to its site. Its own entries win, each stage's as a whole."""
    return pipeline.model_copy(
        update={name: _over(getattr(site, name), getattr(pipeline, name)) for name in PLACEMENT_FIELDS}
    )


def _over(below: T, own: T) -> T:
    if not isinstance(own, BaseModel):
        return below if own is None else own
    assert isinstance(below, BaseModel)
    given = {name: value for name in type(own).model_fields if (value := getattr(own, name)) is not None}
    return below.model_copy(update=given)
