"""Learning: a reward model from the feedback, a better policy from the reward model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.health import (
    accuracy_by_annotator,
    by_annotators,
    calibration_table,
    confounds,
    held_out_annotators,
    held_out_ratings,
    leaks,
    longer_wins,
    of_strangers,
    on_newest,
    position_preference,
    predict,
    predictions_of_people,
    preference_health,
    read_patches,
    regressions,
    surer_first,
    weighted_mean,
    without_questions,
)
from rlhf_core.metrics import Metric
from rlhf_core.plugins import CONTROL_ARM, FitJob, RewardModel, Use
from rlhf_core.run import Run
from rlhf_flows.stages.artifacts_io import (
    load_policy,
    load_reward,
    remember_use,
    save_into,
    tuned,
)
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.join import fit_or_join

SHOWN_PATCHES = 10
"""Examples that an error shows."""
FEWEST_MATCHED = 10
"""Questions of each arm below which nothing is said about what selection gains."""


class Learning(NamedTuple):
    """What a reward model learns from, and what it is measured on."""

    job: FitJob
    test: FeedbackSet
    strangers: set[str]
    """Annotators whose answers are neither in the job's training nor in its validation feedback."""


def split_feedback(context: StageContext) -> tuple[FeedbackSet, FeedbackSet, FeedbackSet, set[str]]:
    """The snapshot's training, validation and test feedback, the first two without the annotators that are held out,
    and who those are. Raises TrainingError where nothing is on training prompts.
    """
    feedback = FeedbackSet.open(context.need("snapshot"))
    train, validation, test = (feedback.split(name) for name in ("train", "validation", "test"))
    if not len(train):
        raise TrainingError(
            "no feedback is on training prompts.", remedy="Collect more feedback, or check the data's splits."
        )
    strangers = held_out_annotators(train, float(context.settings["annotators"]))
    if strangers:
        context.run.note(f"learns nothing from {', '.join(sorted(strangers))}: held out to be measured on")
        train, validation = (by_annotators(part, strangers, given=False) for part in (train, validation))
    return train, validation, test, strangers


def fit_job(context: StageContext, use: Use) -> Learning:
    """What a reward model learns from. Raises TrainingError where there is nothing to learn from."""
    train, validation, test, strangers = split_feedback(context)
    previous = load_reward(context, "previous", use=use) if context.input("previous") is not None else None
    base = load_policy(context, "base") if context.input("base") is not None else None
    return Learning(FitJob(train=train, validation=validation, previous=previous, base=base), test, strangers)


def fit_reward(context: StageContext) -> Outcome:
    """Fit the reward model on the training prompts' feedback; measure it on feedback that it never saw.

    It is measured on the test prompts' feedback; where there is none, on the validation prompts', which decided when
    to stop: the stage says which.
    """
    use = tuned(context.needed_use("reward"), context.input("tuning"))
    model: RewardModel = context.registry.create("reward_models", use, context.run)
    metrics: dict[str, Metric] = {}
    summary = "nothing to learn"
    if model.learns_from:
        job, test, strangers = fit_job(context, use)
        metrics = fit_or_join(context, model, job)
        held_out = test if test.pairs() or test.ratings() else job.validation
        if held_out is job.validation:
            context.run.note("no feedback on test prompts yet: measured on the validation prompts")
        known = leaks(job.train, held_out)
        if known:
            context.run.note(f"{len(known)} held-out questions are known from training: not measured on them")
            held_out = without_questions(held_out, known)
        metrics |= _health(context, model, held_out, job.train)
        if strangers:
            metrics |= of_strangers(model, by_annotators(held_out, strangers, given=True))
        if context.settings["measure_selection"]:
            metrics |= _selection_gain(context, use, replace(job, previous=None), held_out)
        if "reward_accuracy" in metrics:
            shown = {name: metrics.get(f"reward_{name}") for name in ("ece", "length_accuracy")}
            summary = f"accuracy {metrics['reward_accuracy']}"
            summary += f"  ECE {shown['ece'].value:.2f}" if shown["ece"] else ""
            summary += f"  (length alone {shown['length_accuracy'].value:.2f})" if shown["length_accuracy"] else ""
        elif "reward_spearman" in metrics:
            summary = f"Spearman {metrics['reward_spearman']}"
    save_into(model, context.draft / "reward")
    if context.input("tuning") is not None:
        remember_use(context.draft / "reward", use)
    return Outcome(metrics, {"summary": summary})


def _health(context: StageContext, model: RewardModel, held_out: FeedbackSet, train: FeedbackSet) -> dict[str, Metric]:
    """How well the model predicts held-out people; the tables of the report go beside the weights."""
    found = held_out_ratings(model, held_out) | position_preference(train)
    pairs = held_out.pairs()
    if not pairs:
        return found
    predictions = predict(model, pairs)
    rows = calibration_table(*surer_first(predictions.predicted, predictions.stated, predictions.weight))
    (context.draft / "calibration.json").write_text(json.dumps(rows))
    by_annotator = accuracy_by_annotator(model, held_out)
    shown = [{"annotator": who, "accuracy": share, "answers": n} for who, (share, n) in by_annotator.items()]
    (context.draft / "annotators.json").write_text(json.dumps(shown))
    if by_annotator:
        worst = min(accuracy for accuracy, _ in by_annotator.values())
        found["reward_accuracy_worst_annotator"] = Metric(value=worst, n=len(by_annotator))
    longer = longer_wins(predictions_of_people(train))
    return (
        found
        | preference_health(predictions, longer_is_better=longer)
        | on_newest(model, held_out, predictions, pairs)
        | confounds(predictions, pairs)
    )


def _selection_gain(context: StageContext, use: Use, job: FitJob, held_out: FeedbackSet) -> dict[str, Metric]:
    """Accuracy of a reward model fitted on chosen questions less that of one fitted on the control arm's, from equally
    many questions each. Both are measured on the same held-out prompts, which are always asked about by lot.
    """
    arms: tuple[list[str], list[str]] = ([], [])
    asked = {answer.question.id: answer.question for answer in job.train.answers()}
    for name, question in sorted(asked.items()):
        arms[question.reason == CONTROL_ARM].append(name)
    count = min(map(len, arms))
    pairs = held_out.pairs()
    if count < FEWEST_MATCHED or not any(pair.probability != 0.5 for pair in pairs):
        context.run.note(f"{count} questions of each arm are too few to measure what selection gains")
        return {}
    right: list[np.ndarray] = []
    for arm in arms:
        # Ids are as good as random: the first ones are a fair sample of the arm.
        kept = without_questions(job.train, set(asked) - set(arm[:count]))
        model: RewardModel = context.registry.create("reward_models", use, Run(context.run.seed))
        model.fit(FitJob(train=kept, validation=job.validation, base=job.base))
        seen = predict(model, pairs)
        right.append(np.where(seen.predicted == 0.5, 0.5, (seen.predicted > 0.5) == (seen.stated > 0.5)).astype(float))
    decided = np.where(seen.stated == 0.5, 0.0, seen.weight)
    names = ("selection_gain", "reward_accuracy_selected_arm", "reward_accuracy_control_arm")
    values = (right[0] - right[1], right[0], right[1])
    return {name: weighted_mean(value, decided, seen.prompts) for name, value in zip(names, values, strict=True)}


def check_patches(context: StageContext) -> Outcome:
    """Every problem that was found once must stay solved. Raises TrainingError with the examples that are not."""
    model = load_reward(context, "reward")
    paths = [Path(str(each["path"])) for each in context.settings["patches"]]
    patches = [patch for path in paths for patch in read_patches(path)]
    due = [patch for patch in patches if patch.since <= context.node.round]
    failed = regressions(model, due)
    if failed:
        shown = "\n".join(f"- {patch.words()}" for patch in failed[:SHOWN_PATCHES])
        more = f"\n- and {len(failed) - SHOWN_PATCHES} more" if len(failed) > SHOWN_PATCHES else ""
        raise TrainingError(
            f"the reward model of round {context.node.round} gets {len(failed)} of {len(due)} patched examples wrong:"
            f"\n{shown}{more}",
            where=", ".join(map(str, paths)),
            remedy="Bring feedback like them (a data source with `chosen` and `rejected`), or change the reward model.",
        )
    (context.draft / "patches.json").write_text(json.dumps({"checked": len(due)}))
    return Outcome({"patches_checked": Metric(value=len(due))}, {"summary": f"{len(due)} examples stay right"})


def fit_gold(context: StageContext) -> Outcome:
    """Fit the held-back judge, on the test prompts' feedback alone: training never sees any of it."""
    model: RewardModel = context.create("gold")
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
