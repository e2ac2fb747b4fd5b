"""Learning: a reward model from the feedback, a better policy from the reward model."""

from __future__ import annotations

import json

import numpy as np

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.health import Predictions, calibration_table, preference_health, surer_first
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob, OptimizeJob, Optimizer, RewardModel
from rlhf_core.records import Sample
from rlhf_flows.stage import Outcome, StageContext
from rlhf_flows.steps.artifacts_io import (
    demonstrations_of,
    load_policy,
    load_proxy,
    load_reward,
    prompts_of,
    save_into,
)


def fit_reward(context: StageContext) -> Outcome:
    """Fit the reward model on the training prompts' feedback; measure it on feedback that it never saw.

    It is measured on the test prompts' feedback; where there is none, on the validation prompts', which decided when
    to stop: the stage says which.
    """
    use = context.pipeline.reward
    model: RewardModel = context.create("reward_models", use)
    metrics: dict[str, Metric] = {}
    summary = "nothing to learn"
    if model.learns_from:
        feedback = FeedbackSet.open(context.need("snapshot"))
        train, validation, test = (feedback.split(name) for name in ("train", "validation", "test"))
        if not len(train):
            raise TrainingError(
                "no feedback is on training prompts.", remedy="Collect more feedback, or check the data's splits."
            )
        previous = load_reward(context, "previous", use) if context.input("previous") is not None else None
        base = load_policy(context, "base") if context.input("base") is not None else None
        metrics = dict(model.fit(FitJob(train=train, validation=validation, previous=previous, base=base)))
        held_out = test if test.pairs() else validation
        if held_out is validation:
            context.run.note("no feedback on test prompts yet: measured on the validation prompts")
        metrics |= _health(context, model, held_out)
        if "reward_accuracy" in metrics:
            shown = {name: metrics.get(f"reward_{name}") for name in ("ece", "length_accuracy")}
            summary = f"accuracy {metrics['reward_accuracy']}"
            summary += f"  ECE {shown['ece'].value:.2f}" if shown["ece"] else ""
            summary += f"  (length alone {shown['length_accuracy'].value:.2f})" if shown["length_accuracy"] else ""
    save_into(model, context.draft / "reward")
    return Outcome(metrics, {"summary": summary})


def _health(context: StageContext, model: RewardModel, held_out: FeedbackSet) -> dict[str, Metric]:
    """How well the model predicts held-out preferences; the reliability table goes beside the weights."""
    pairs = held_out.pairs()
    if not pairs:
        return {}
    prompts = [pair.prompt for pair in pairs]
    first = np.array(model.score(prompts, [pair.first.blind() for pair in pairs]).mean)
    second = np.array(model.score(prompts, [pair.second.blind() for pair in pairs]).mean)
    predictions = Predictions(
        predicted=1 / (1 + np.exp(second - first)),
        stated=np.array([pair.probability for pair in pairs]),
        weight=np.array([pair.weight for pair in pairs]),
        longer=np.array([_length(pair.first) - _length(pair.second) for pair in pairs], dtype=float),
        prompts=[prompt.group or prompt.id for prompt in prompts],
    )
    rows = calibration_table(*surer_first(predictions.predicted, predictions.stated, predictions.weight))
    (context.draft / "calibration.json").write_text(json.dumps(rows))
    return preference_health(predictions)


def _length(sample: Sample) -> int:
    return len(sample.text or "") if sample.trajectory is None else len(sample.trajectory.actions)


def fit_gold(context: StageContext) -> Outcome:
    """Fit the held-back judge, on the test prompts' feedback alone: training never sees any of it."""
    assert context.pipeline.gold is not None
    model: RewardModel = context.create("reward_models", context.pipeline.gold)
    held_back = FeedbackSet.open(context.need("snapshot")).split("test")
    if not len(held_back):
        raise TrainingError(
            "the gold judge learns from feedback on held-out prompts, and there is none.",
            remedy="Name a gold judge that needs no feedback, or bring more data.",
        )
    validation = FeedbackSet.open(context.need("snapshot")).split("validation")
    base = load_policy(context, "base")
    metrics = dict(model.fit(FitJob(train=held_back, validation=validation, base=base)))
    save_into(model, context.draft / "reward")
    return Outcome(metrics, {"summary": f"{len(held_back):,} held-out answers"})


def optimize_policy(context: StageContext) -> Outcome:
    """Improve the policy by the reward, within reach of the reference."""
    data = context.need("data")
    keep = context.draft / "kept"
    keep.mkdir()
    policy = load_policy(context, "policy")
    optimizer: Optimizer = context.create("optimizers", context.pipeline.optimize)
    previous = context.input("previous")
    metrics = optimizer.optimize(
        OptimizeJob(
            policy=policy,
            reference=load_policy(context, "reference"),
            reward=load_proxy(context),
            prompts=prompts_of(data, "train"),
            demonstrations=demonstrations_of(data, "train"),
            previous=previous / "kept" if previous is not None else None,
            keep=keep,
        )
    )
    save_into(policy, context.draft / "policy")
    shown = ", ".join(f"{name} {metric.value:.3g}" for name, metric in list(metrics.items())[:4])
    return Outcome(dict(metrics), {"summary": shown})
