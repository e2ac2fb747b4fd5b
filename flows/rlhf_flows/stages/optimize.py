"""Optimising: a better policy, from the reward model or from the feedback itself."""

from __future__ import annotations

from rlhf_core.plugins import OptimizeJob, Optimizer
from rlhf_core.records.files import demonstrations_of, prompts_of
from rlhf_flows.stages.artifacts_io import load_policy, load_proxy, save_into
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.learn import split_feedback


def optimize_policy(context: StageContext) -> Outcome:
    """Improve the policy by the reward, or by what people said where there is none, within reach of the reference."""
    data = context.need("data")
    keep = context.draft / "kept"
    keep.mkdir()
    policy = load_policy(context, "policy")
    optimizer: Optimizer = context.create("optimizer")
    previous = context.input("previous")
    train, validation, _, _ = split_feedback(context) if context.input("snapshot") is not None else (None,) * 4
    metrics = optimizer.optimize(
        OptimizeJob(
            policy=policy,
            reference=load_policy(context, "reference"),
            reward=load_proxy(context) if context.use("reward") is not None else None,
            prompts=prompts_of(data, "train"),
            demonstrations=demonstrations_of(data, "train"),
            previous=previous / "kept" if previous is not None else None,
            keep=keep,
            feedback=train,
            validation=validation,
        )
    )
    save_into(policy, context.draft / "policy")
    shown = ", ".join(f"{name} {metric.value:.3g}" for name, metric in list(metrics.items())[:4])
    return Outcome(dict(metrics), {"summary": shown})
