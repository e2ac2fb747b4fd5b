"""Where the stages of a pipeline run, and how patient one is with them: `run_on`, `stages` and `artifacts`.

None of it changes what a stage computes, so that it is no part of a campaign's identity.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ByteSize, ConfigDict, Discriminator, Field, Tag, model_validator

StageName = Literal[
    "data", "warm_start", "gold", "questions", "answers", "snapshot", "tune", "reward", "patches", "optimize",
    "samples", "evaluate", "gate", "steps",
]  # fmt: skip
STAGES: tuple[StageName, ...] = get_args(StageName)
"""The kinds of work in a pipeline, in the order of a round; every third party's stage is of the kind `steps`."""
PLACEMENT_FIELDS = ("run_on", "stages", "artifacts")
"""Fields of a pipeline that a site file may give as well, and that are no part of a campaign's identity."""
TALKATIVE: frozenset[StageName] = frozenset({"answers", "steps"})
"""Stages that talk to other programs, which may be busy or starting: they are tried again unless told otherwise."""


class Part(BaseModel):
    """Base of the pipeline's own sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Section(Part):
    model_config = ConfigDict(allow_inf_nan=False)


class Ray(_Section):
    """A place on a Ray cluster, and what the stage reserves there."""

    address: str | None = Field(None, min_length=1)
    """The cluster, such as `ray://head:10001`; default: the environment's RAY_ADDRESS, else `auto`, which finds the
    cluster that this machine belongs to."""
    num_cpus: float | None = Field(None, ge=0)
    """CPU cores; default: Ray's own, which is 1."""
    num_gpus: float | None = Field(None, ge=0)
    """GPUs; a part of one (0.5) shares it."""
    memory: ByteSize | None = Field(None, gt=0)
    """Memory, in bytes or as `16GiB`."""
    resources: dict[str, float] = {}
    """The cluster's own resources, such as `{a100: 1}`."""

    def cluster(self) -> str:
        """The address to connect to."""
        return self.address or os.environ.get("RAY_ADDRESS") or "auto"


class Dask(_Section):
    """A place on a Dask cluster, and what the stage reserves there."""

    address: str | None = Field(None, min_length=1)
    """The scheduler, such as `tcp://scheduler:8786`; default: the environment's DASK_SCHEDULER_ADDRESS."""
    workers: int | None = Field(None, ge=1)
    """Instead of an address: a cluster of so many processes on this machine, for as long as the run takes."""
    resources: dict[str, float] = {}
    """What a worker must have been started with (`dask worker --resources GPU=1`), such as `{GPU: 1}`."""

    @model_validator(mode="after")
    def _is_one_cluster(self) -> Self:
        if self.address is not None and self.workers is not None:
            raise ValueError("give either the `address` of a scheduler, or `workers` on this machine")
        return self

    def cluster(self) -> str | None:
        """The scheduler to connect to; None for a cluster on this machine."""
        return None if self.workers is not None else self.address or os.environ.get("DASK_SCHEDULER_ADDRESS") or None


class Elsewhere(_Section):
    """A cluster: `{ray: {num_gpus: 4}}` or `{dask: {address: tcp://scheduler:8786}}`."""

    ray: Ray | None = None
    """On a Ray cluster; needs the extra `ray`."""
    dask: Dask | None = None
    """On a Dask cluster; needs the extra `dask`."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.ray is None) == (self.dask is None):
            raise ValueError("give either `ray: {...}` or `dask: {...}`")
        return self


OnThisMachine = Literal["here", "workers"]
_Word = Literal["here", "workers", "ray", "dask"]


def _form(value: object) -> str:
    """Errors are about the form that was written."""
    return "cluster" if isinstance(value, dict | Elsewhere) else "word"


Place = Annotated[Annotated[_Word, Tag("word")] | Annotated[Elsewhere, Tag("cluster")], Discriminator(_form)]
"""`here`: in the process of the run. `workers`: in one of the processes beside it. `ray` and `dask`: on the cluster
that the environment names; or a cluster with its options."""


class RunOn(_Section):
    """Where each stage runs: `here` (in the process of the run), `workers` (in one of several processes on this
    machine), `ray` or `dask` (on the cluster that the environment names), or a cluster with options (`{ray: {...}}`).
    """

    workers: int | None = Field(None, ge=1)
    """Processes side by side on this machine; default: 1, the process of the run itself."""
    default: Place | None = None
    """Stages that are not named; default: `workers` where there are several, else `here`."""
    data: Place | None = None
    """Reading the data sources."""
    warm_start: Place | None = None
    """Imitation before the first round."""
    gold: Place | None = None
    """Fitting the held-back judge."""
    questions: Place | None = None
    """Sampling the policy and choosing what to ask about."""
    answers: Place | None = None
    """Asking the annotators, each a stage of its own."""
    snapshot: Place | None = None
    """Freezing the feedback that counts."""
    tune: Place | None = None
    """Searching for the reward model's settings."""
    reward: Place | None = None
    """Fitting the reward model."""
    patches: Place | None = None
    """Checking the patch sets."""
    optimize: Place | None = None
    """Optimising the policy."""
    samples: Place | None = None
    """Sampling policies on the test prompts, each a stage of its own."""
    evaluate: Place | None = None
    """The evaluators, each a stage of its own."""
    gate: Place | None = None
    """The decision."""
    steps: Place | None = None
    """Third parties' stages, each a stage of its own."""


class StageLimits(_Section):
    """How patient one is with a stage."""

    retries: int | None = Field(None, ge=0)
    """How often it is tried again when it fails; default: 2 for `answers` and `steps`, which talk to other programs,
    and 0 for the others, which would fail again. Mistakes in the pipeline or the data are never tried again."""
    backoff: float | None = Field(None, ge=0)
    """Seconds before it is tried again, twice as many each further time; default: 5."""
    timeout: float | None = Field(None, gt=0)
    """Seconds after which one try is given up; default: none."""


class Stages(_Section):
    """Retries and time limits, by stage."""

    data: StageLimits | None = None
    warm_start: StageLimits | None = None
    gold: StageLimits | None = None
    questions: StageLimits | None = None
    answers: StageLimits | None = None
    snapshot: StageLimits | None = None
    tune: StageLimits | None = None
    reward: StageLimits | None = None
    patches: StageLimits | None = None
    optimize: StageLimits | None = None
    samples: StageLimits | None = None
    evaluate: StageLimits | None = None
    gate: StageLimits | None = None
    steps: StageLimits | None = None


class Placement(Part):
    """The fields that pipelines and site files have in common."""

    run_on: RunOn = RunOn()
    """Where each stage runs; default: all in this process."""
    stages: Stages = Stages()
    """Retries and time limits of stages: `{answers: {retries: 5, backoff: 10, timeout: 3600}}`."""
    artifacts: str | None = Field(None, min_length=1)
    """Where the results of stages lie: a folder, or a URL such as `s3://team/rlhf`. RLHF_ARTIFACTS overrides it;
    default: a folder in the workspace."""


class Limits(NamedTuple):
    """How patient one is with a stage, defaults filled in."""

    retries: int
    backoff: float
    """Seconds before the first further try."""
    timeout: float | None
    """Seconds that one try may take."""

    def waits(self) -> list[float]:
        """Seconds before each further try."""
        return [self.backoff * 2**i for i in range(self.retries)]


def workers_of(placement: Placement) -> int:
    """How many processes run side by side on this machine; 1 is the process of the run itself."""
    return placement.run_on.workers or 1


def place_of(placement: Placement, stage: StageName) -> OnThisMachine | Ray | Dask:
    """Where a stage runs. A pipeline is a placement."""
    run_on = placement.run_on
    place: _Word | Elsewhere | None = getattr(run_on, stage) or run_on.default
    if place is None:
        return "workers" if workers_of(placement) > 1 else "here"
    if place == "ray":
        return Ray()
    if place == "dask":
        return Dask()
    if not isinstance(place, Elsewhere):
        return place
    cluster = place.ray or place.dask
    assert cluster is not None
    return cluster


def limits_of(placement: Placement, stage: StageName) -> Limits:
    """How patient one is with a stage. A pipeline is a placement."""
    given: StageLimits = getattr(placement.stages, stage) or StageLimits()
    retries = given.retries if given.retries is not None else 2 * (stage in TALKATIVE)
    return Limits(retries, 5.0 if given.backoff is None else given.backoff, given.timeout)
