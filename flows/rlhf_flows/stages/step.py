"""A third party's step at its place in a round."""

from __future__ import annotations

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.plugins import Use
from rlhf_core.plugins.step import Step, StepJob
from rlhf_flows.stages.artifacts_io import CONFIGURED, remember_use, remembered_use
from rlhf_flows.stages.collect import facts_of
from rlhf_flows.stages.context import Outcome, StageContext


def run_step(context: StageContext) -> Outcome:
    """Let the step work on the artifacts that it takes; what it fills its folder with is the artifact that it gives."""
    step: Step = context.create("step")
    takes, results = frozenset(step.takes), context.results
    # What stands at the step's place is an input of the stage also where the step takes something else.
    inputs = {name: context.need(name) for name in results if name in takes}
    uses: dict[str, Use] = {}
    if "policy" in inputs:
        uses["policy"] = context.needed_use("policy")
    if "reward" in inputs:
        uses["reward"] = remembered_use(inputs["reward"] / "reward", context.needed_use("reward"))
    found = step.step(
        StepJob(
            inputs=inputs,
            out=context.draft,
            pipeline=context.node.pipeline,
            round=context.node.round,
            info={name: value for result in results.values() for name, value in result.info.items()},
            metrics={name: metric for result in results.values() for name, metric in result.metrics.items()},
            uses=uses,
        )
    )
    # What stood at its place keeps its facts where they are not said anew.
    facts = dict(results[step.gives].info) if step.gives in results else {}
    if step.gives == "snapshot":
        facts |= {**facts_of(FeedbackSet.open(context.draft)), "digest": Snapshot.read(context.draft).digest}
    if step.gives == "reward" and (inputs["reward"] / "reward" / CONFIGURED).exists():
        # A search chose its settings; whoever loads what the step made of it needs them, too.
        remember_use(context.draft / "reward", uses["reward"])
    return Outcome(dict(found.metrics), {**facts, "summary": found.summary})
