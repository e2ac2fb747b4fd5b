"""A pipeline: its specification, the YAML file it stands in, and the proof that its parts fit together."""

from rlhf_core.pipeline.spec import Ask, Pipeline, Span, Test, Tune

__all__ = ["Ask", "Pipeline", "Span", "Test", "Tune"]
