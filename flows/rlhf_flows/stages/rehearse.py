"""Rehearsing a campaign with simulated raters: how good would the reward model become with how many answers?"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import Annotator, FitJob, RewardModel, Scores, Use
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.records.files import prompts_of
from rlhf_core.run import Run
from rlhf_core.splits import split_of
from rlhf_flows.stages.artifacts_io import load_policy, load_reward
from rlhf_flows.stages.collect import prompts_of_round, select_from
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.policy import sample_with_progress

RESULTS = "results.json"
HELD_OUT = 400
"""Held-out prompts at most, one pair each: an interval of about five points at an accuracy of 0.8."""


@dataclass(frozen=True)
class Known:
    """Scores that a judge gave once, to be given again."""

    mean: Mapping[str, float]
    """By sample id."""
    criteria: Mapping[str, Mapping[str, float]]
    """Criterion -> sample id -> score."""

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """As `RewardModel.score`."""
        criteria = {name: [by[sample.id] for sample in samples] for name, by in self.criteria.items()}
        return Scores([self.mean[sample.id] for sample in samples], criteria=criteria)


def rehearse(context: StageContext) -> Outcome:
    """Fit the pipeline's reward model on simulated answers of growing number, and measure it on held-out prompts.

    Writes, for each number of questions, overlap, raters and repeat: whether the model orders each held-out pair as the
    judge does, whether it does as the panel says, and how many answers it learnt from. What was measured survives a
    kill.
    """
    settings: Mapping[str, Any] = context.settings
    budgets = list(settings["budgets"])
    questions = select_from(context, prompts_of_round(context, max(budgets)), max(budgets))
    if len(questions) < max(budgets):
        context.run.note(f"the data gives {len(questions)} questions, of the {max(budgets)} that were to be tried")
        budgets = sorted({min(budget, len(questions)) for budget in budgets})
    held_out = list(_held_out(context))
    judge = _judged(context, [*questions, *held_out])
    truth = np.array([judge.mean[q.samples[0].id] - judge.mean[q.samples[1].id] for q in held_out])
    if not truth.any():
        raise DataError("the judge finds all held-out samples equally good: nothing can be planned with it.")
    held_out, truth = [q for q, gap in zip(held_out, truth, strict=True) if gap], truth[truth != 0]
    done = _recalled(context)
    grid = list(product(settings["raters"], settings["overlaps"], range(settings["repeats"]), budgets))
    for number, (raters, overlap, repeat, budget) in enumerate(grid, start=1):
        key = f"{raters}/{overlap}/{repeat}/{budget}"
        if key not in done and overlap <= raters:
            panel = _panel(context, settings["panel"], judge, raters, repeat)
            chosen = random.Random(f"{context.run.seed}/{repeat}").sample(questions, len(questions))[:budget]
            result = _one(context, panel, chosen, held_out, truth, overlap, repeat)
            done[key] = {"raters": raters, "overlap": overlap, "repeat": repeat, "questions": budget, **result}
            context.run.checkpoints.save(number, lambda folder: _write(folder, done))
        context.run.progress(number, len(grid), "reward models fitted")
    results = [result for result in done.values() if result["right"] is not None]
    (context.draft / RESULTS).write_text(json.dumps(results))
    return Outcome(info={"summary": f"{len(results)} reward models measured on {len(held_out)} held-out prompts"})


def _one(
    context: StageContext, panel: Annotator, chosen: Sequence[Question], held_out: Sequence[Question],
    truth: np.ndarray, overlap: int, repeat: int,
) -> dict[str, Any]:  # fmt: skip
    """Fit one reward model and measure it."""
    answers = _answers(panel, chosen, overlap)
    train, validation = (FeedbackSet.of(a for a in answers if split_of(a.question.prompt) == s) for s in
                         ("train", "validation"))  # fmt: skip
    seed = context.run.seed + repeat
    model: RewardModel = context.registry.create("reward_models", context.needed_use("reward"), Run(seed))
    found: dict[str, Any] = {"answers": len(answers), "right": None, "agrees": None}
    try:
        model.fit(FitJob(train=train, validation=validation, base=load_policy(context, "policy")))
    except (TrainingError, DataError, ValueError) as error:
        context.run.note(f"{len(chosen)} questions are too few to learn from: {str(error).splitlines()[0]}")
        return found
    prompts = [question.prompt for question in held_out for _ in question.samples]
    scores = np.array(model.score(prompts, [s.blind() for q in held_out for s in q.samples]).mean)
    gap = scores[0::2] - scores[1::2]
    found["right"] = _agreement(gap, truth).tolist()
    said = {pair: votes for pair, votes in _heard(_answers(panel, held_out, overlap)).items() if votes}
    heard = np.array([said.get(question.id, 0.0) for question in held_out])
    found["agrees"] = float(_agreement(gap[heard != 0], heard[heard != 0]).mean()) if heard.any() else None
    return found


def _agreement(gap: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where both have one sign, 0.5 where `gap` has none."""
    return np.asarray((1 + np.sign(gap) * np.sign(other)) / 2)


def _heard(answers: Sequence[Answer]) -> dict[str, float]:
    """For each question how far the panel leans to its first sample."""
    leaning: dict[str, float] = {}
    for answer in answers:
        chosen = getattr(answer.feedback, "choice", "tie")
        leaning.setdefault(answer.question.id, 0.0)
        leaning[answer.question.id] += (chosen == "first") - (chosen == "second")
    return leaning


def _answers(panel: Annotator, questions: Sequence[Question], overlap: int) -> list[Answer]:
    asked = {question.id: question.model_copy(update={"wanted": overlap}) for question in questions}
    given = panel.annotate(list(asked.values()))
    return [Answer(question=asked[each.question_id].blind(), feedback=each) for each in given]


def _panel(context: StageContext, options: Mapping[str, Any], judge: Known, raters: int, repeat: int) -> Annotator:
    """Other people in every repeat, as many as `raters`."""
    seed = int(options.get("seed", 0)) + repeat
    use = Use(**{**options, "raters": raters, "seed": seed})
    panel: Annotator = context.registry.create("annotators", use, Run(context.run.seed))
    panel.judge = judge  # type: ignore[attr-defined]
    return panel


def _judged(context: StageContext, questions: Sequence[Question]) -> Known:
    """The judge's scores of everything that is asked about or measured on."""
    judge = load_reward(context, "gold", "gold") if "gold" in context.results else context.create("judge")
    pairs = {sample.id: (question.prompt, sample) for question in questions for sample in question.samples}
    scores = judge.score([prompt for prompt, _ in pairs.values()], [sample for _, sample in pairs.values()])
    criteria = {name: dict(zip(pairs, values, strict=True)) for name, values in scores.criteria.items()}
    return Known(dict(zip(pairs, scores.mean, strict=True)), criteria)


def _held_out(context: StageContext) -> Iterator[Question]:
    """One pair of different samples of each held-out prompt."""
    prompts = sorted(prompts_of(context.need("data"), "test"), key=lambda prompt: prompt.id)[:HELD_OUT]
    policy = load_policy(context, "policy")
    sampled = sample_with_progress(context, policy, prompts, 4, context.run.seed)
    for prompt, samples in zip(prompts, sampled, strict=True):
        bare = {(s.text, s.trajectory and s.trajectory.id): s.model_copy(update={"tokens": (), "logprobs": ()}) for s in
                samples}  # fmt: skip
        if len(bare) > 1:
            yield Question(prompt=prompt, samples=tuple(bare.values())[:2], reason="held out")


def _recalled(context: StageContext) -> dict[str, dict[str, Any]]:
    latest = context.run.checkpoints.latest()
    return json.loads((latest[1] / RESULTS).read_text()) if latest is not None else {}


def _write(folder: Path, done: Mapping[str, Any]) -> None:
    (folder / RESULTS).write_text(json.dumps(done))
