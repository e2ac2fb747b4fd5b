"""A third party's step at its place in a round."""

from __future__ import annotations

from rlhf_core.plugins.step import Step, StepJob
from rlhf_flows.stages.context import Outcome, StageContext


def run_step(context: StageContext) -> Outcome:
    """Let the step work on the artifacts that it takes; what it fills its folder with is the artifact that it gives."""
    step: Step = context.create("step")
    results = context.results
    found = step.step(
        StepJob(
            inputs={name: context.need(name) for name in results},
            out=context.draft,
            pipeline=context.node.pipeline,
            round=context.node.round,
            info={name: value for result in results.values() for name, value in result.info.items()},
            metrics={name: metric for result in results.values() for name, metric in result.metrics.items()},
        )
    )
    # What stood at its place keeps its facts where the step does not say them anew.
    replaced = results[step.gives].info if step.gives in results else {}
    return Outcome(dict(found.metrics), {**replaced, "summary": found.summary})
