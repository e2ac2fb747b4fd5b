"""A pipeline: its specification, the YAML file it stands in, and the proof that its parts fit together."""

from rlhf_core.pipeline.placement import (
    PLACEMENT_FIELDS,
    STAGES,
    Dask,
    Limits,
    Ray,
    StageName,
    limits_of,
    place_of,
    workers_of,
)
from rlhf_core.pipeline.spec import Ask, Pipeline, Span, Test, Tune

__all__ = [
    "PLACEMENT_FIELDS", "STAGES",
    "Ask", "Dask", "Limits", "Pipeline", "Ray", "Span", "StageName", "Test", "Tune",
    "limits_of", "place_of", "workers_of",
]  # fmt: skip
