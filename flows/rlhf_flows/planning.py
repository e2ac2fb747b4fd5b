"""`rlhf plan` and `rlhf panel`: what a campaign will take, said by simulated raters, who may be fitted to real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import DataError, PipelineError
from rlhf_core.feedback.learning_curve import Curve, fit_curve, resampled_curves, resampled_means
from rlhf_core.feedback.panel_fit import FittedPanel, comparisons, fit_panel
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.metrics import Metric
from rlhf_core.plugins import RewardModel, Use
from rlhf_core.records import Answer
from rlhf_flows.graph.build import Compiler
from rlhf_flows.own import own_flow
from rlhf_flows.session import Session
from rlhf_flows.stages.rehearse import RESULTS
from rlhf_flows.workspace import write_atomically

BEYOND = 4.0
"""How many times the largest budget tried a curve is believed."""
VALUES_FROM = 40
"""Answers for each criterion of the judge from which people's values are fitted."""


class Point(BaseModel):
    """A measured point of a curve."""

    model_config = ConfigDict(frozen=True)

    questions: int
    answers: float
    """Answers given, skips included; the mean over the repeats."""
    accuracy: Metric
    """Share of held-out pairs that the reward model orders as the judge does."""
    as_measured: float | None
    """The same by the panel's own answers, ties left out: what a campaign can see, and less than the truth."""


class Plan(BaseModel):
    """What one choice of overlap and raters takes."""

    model_config = ConfigDict(frozen=True)

    overlap: int
    raters: int
    points: tuple[Point, ...]
    curve: Curve
    band: tuple[tuple[int, float, float, float], ...]
    """Questions, accuracy by the curve, and the ends of its interval."""
    needed: int | None
    """Questions that reach the target; None where it is out of reach, or farther than can be said."""
    needed_low: int | None = None
    needed_high: int | None = None
    """The interval's ends; None where an end is out of reach."""
    shown: bool = False
    """Whether the target lies within what was tried, and not beyond."""

    @property
    def answers(self) -> int | None:
        """Answers that reach the target."""
        return None if self.needed is None else self.needed * self.overlap

    def words(self, largest: int) -> str:
        """The questions needed, with the interval."""
        if self.needed is None:
            return f"not within {round(BEYOND * largest):,}"
        if self.needed <= self.points[0].questions:
            return f"at most {self.points[0].questions:,}"
        ends = [self.needed_low, self.needed_high]
        low, high = (f"{end:,}" if end is not None else f"> {round(BEYOND * largest):,}" for end in ends)
        return f"{self.needed:,} [{low}, {high}]" + ("" if self.shown else " (beyond what was tried)")


@dataclass(frozen=True)
class Question:
    """What is to be planned."""

    target: float
    budgets: tuple[int, ...]
    overlaps: tuple[int, ...]
    raters: tuple[int, ...]
    repeats: int


def budgets_up_to(most: int, steps: int = 5) -> tuple[int, ...]:
    """`steps` numbers of questions, each half of the next."""
    return tuple(sorted({max(10, round(most / 2**step)) for step in range(steps)}))


def panel_of(session: Session) -> tuple[dict[str, Any], Use | None]:
    """The panel to simulate with, and its judge; no judge where the pipeline's gold judge has to be fitted first.

    The pipeline's own `simulated_panel`, else the default one, judged by the pipeline's gold judge.
    """
    pipeline, registry = session.pipeline, session.registry
    if pipeline.ask is None:
        raise PipelineError(
            "this pipeline asks nobody, so there is nothing to plan.", remedy="Add `ask:` with people or a panel."
        )
    own = [use for use in pipeline.ask.annotators if use.use.rpartition("/")[2] == "simulated_panel"]
    options = {"use": "simulated_panel", **(own[0].options if own else {})}
    if own:
        config = registry.load("annotators", "simulated_panel").Config(**own[0].options)
        return options, config.judge
    if pipeline.gold is None:
        raise PipelineError(
            "nobody says what is truly better in a simulation of this pipeline.",
            remedy="Name a judge: `gold: {use: ...}`, or add a `simulated_panel` with its `judge`.",
        )
    learns = tuple(registry.load("reward_models", pipeline.gold.use).learns_from)  # type: ignore[attr-defined]
    return options, None if learns else pipeline.gold


def fit_to_people(session: Session, annotators: Sequence[str] = ()) -> tuple[FittedPanel, dict[str, Any]]:
    """The panel that answers like the people in the store, and its configuration.

    All people, or the `annotators` named. Raises DataError where there is too little to learn from.
    """
    options, judge = panel_of(session)
    if judge is None:
        raise PipelineError(
            "the panel is fitted with a judge that needs no training.",
            remedy="Name one: `gold: {use: principles}`, or a `simulated_panel` with its `judge`.",
        )
    with FeedbackStore.open(session.workspace.store_url) as store:
        said = [
            answer
            for answer in store.answers()
            if (answer.feedback.annotator in annotators if annotators else answer.feedback.source == "person")
        ]
    compared = [answer for answer in said if answer.feedback.kind == "comparison"]
    if not compared:
        raise DataError(
            "nobody has compared two samples yet, so there is nobody to be like.",
            where=session.workspace.store_url,
            remedy="Let people answer first (`rlhf annotate`), or name annotators with --annotator.",
        )
    model: RewardModel = session.registry.create("reward_models", judge)
    scores, criteria = _points(model, compared)
    found = fit_panel(comparisons(said, scores, criteria))
    kept = {name: options[name] for name in ("prefix", "seed") if name in options}
    return found, found.config(judge=judge.model_dump(mode="json"), **kept)


def _points(model: RewardModel, answers: Sequence[Answer]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The judge's points by sample and criterion; one criterion where its own ones do not vary or do not add up."""
    pairs = {s.id: (a.question.prompt, s) for a in answers for s in a.question.samples if s.id in a.feedback.named}
    scored = model.score([prompt for prompt, _ in pairs.values()], [sample for _, sample in pairs.values()])
    names = sorted(name for name, values in scored.criteria.items() if np.std(values) > 1e-9)
    total = np.sum([scored.criteria[name] for name in scored.criteria], axis=0) if scored.criteria else None
    adds_up = total is not None and np.allclose(total, scored.mean)
    if not adds_up or len(names) < 2 or len(answers) < VALUES_FROM * len(names):
        return {identity: {"score": mean} for identity, mean in zip(pairs, scored.mean, strict=True)}, ["score"]
    columns = [scored.criteria[name] for name in names]
    return {
        identity: dict(zip(names, row, strict=True))
        for identity, row in zip(pairs, zip(*columns, strict=True), strict=True)
    }, names


def plan(session: Session, asked: Question, panel: dict[str, Any], judge: Use | None) -> list[Plan]:
    """Rehearse and fit the curves. Results are cached as those of a run are; data and warm start are a run's own."""
    pipeline = session.pipeline
    compiler = Compiler(pipeline, session.registry)
    settings: dict[str, Any] = {
        "budgets": list(asked.budgets), "overlaps": list(asked.overlaps), "raters": list(asked.raters),
        "repeats": asked.repeats, "panel": panel,
    }  # fmt: skip
    with own_flow(
        pipeline.pipeline,
        seed=pipeline.seed,
        workspace=session.workspace,
        placement=pipeline,
        display=session.display,
        purpose="plan",
        parameters=pipeline.model_dump(mode="json"),
    ) as flow:
        flow.run(compiler.prepare())
        rehearsed = flow.run(compiler.rehearsal(Use(**panel), judge, settings))["rehearse"]
        rows = json.loads((flow.folder(rehearsed) / RESULTS).read_text())
        plans = list(plans_of(rows, asked.target, pipeline.seed))
        needed = {f"needed_overlap_{plan.overlap}_raters_{plan.raters}": plan.needed for plan in plans}
        flow.log({name: questions for name, questions in needed.items() if questions is not None})
    return plans


def plans_of(rows: Iterable[dict[str, Any]], target: float, seed: int = 0) -> Iterable[Plan]:
    """A plan for each overlap and number of raters among the measured rows that has two sizes or more."""
    groups: dict[tuple[int, int], dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault((row["overlap"], row["raters"]), {}).setdefault(row["questions"], []).append(row)
    for (overlap, raters), by_size in sorted(groups.items()):
        sizes = sorted(by_size)
        if len(sizes) < 2:
            continue
        right = [np.array([row["right"] for row in by_size[size]]) for size in sizes]
        curve = fit_curve(sizes, [one.mean() for one in right])
        drawn = resampled_curves(sizes, right, seed=seed)
        largest = sizes[-1]
        needed = [_whole(each.needed(target), sizes) for each in (curve, *_ends(drawn, target))]
        yield Plan(
            overlap=overlap, raters=raters, curve=curve,
            points=tuple(_point(size, by_size[size], one, seed) for size, one in zip(sizes, right, strict=True)),
            band=tuple(_band(n, curve, drawn) for n in _steps(sizes[0], max(largest, min(needed[0] or largest,
                                                                                        2 * largest)))),
            needed=needed[0], needed_low=needed[1], needed_high=needed[2],
            shown=needed[0] is not None and needed[0] <= largest,
        )  # fmt: skip


def _ends(curves: Sequence[Curve], target: float) -> tuple[Curve, Curve]:
    """The curves at the 2.5 % and 97.5 % places by how soon they reach the target."""
    ordered = sorted(curves, key=lambda curve: curve.needed(target))
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]


def _whole(needed: float, sizes: Sequence[int]) -> int | None:
    """In whole questions, no fewer than were tried; None beyond what the curve is believed for."""
    return max(sizes[0], math.ceil(needed)) if needed <= BEYOND * sizes[-1] else None


def _point(size: int, rows: Sequence[dict[str, Any]], right: Any, seed: int) -> Point:
    low, high = np.quantile(resampled_means([right], seed=seed), [0.025, 0.975])
    heard = [row["agrees"] for row in rows if row["agrees"] is not None]
    return Point(
        questions=size,
        answers=float(np.mean([row["answers"] for row in rows])),
        accuracy=Metric(value=float(right.mean()), low=float(low), high=float(high), n=right.shape[1]),
        as_measured=float(np.mean(heard)) if heard else None,
    )


def _band(n: int, curve: Curve, drawn: Sequence[Curve]) -> tuple[int, float, float, float]:
    low, high = np.quantile([each.at(n) for each in drawn], [0.025, 0.975])
    return n, curve.at(n), float(low), float(high)


def _steps(low: int, high: int, count: int = 40) -> list[int]:
    return sorted({round(n) for n in np.geomspace(low, high, count)})


def best(plans: Sequence[Plan]) -> Plan | None:
    """The one that reaches the target with the fewest answers."""
    reached = [plan for plan in plans if plan.answers is not None]
    return min(reached, key=lambda plan: (plan.answers, plan.raters)) if reached else None


def write_report(session: Session, plans: Sequence[Plan], target: float, panel: dict[str, Any]) -> Path:
    """The figures and the table as one HTML page in the workspace."""
    from rlhf_core.report.data import About
    from rlhf_core.report.plan import plan_report

    pipeline = session.pipeline
    path = session.workspace.folder / "reports" / f"{pipeline.pipeline}-plan.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = [
        (
            f"overlap {plan.overlap}, {plan.raters} raters",
            [(p.questions, p.accuracy.value, p.accuracy.low, p.accuracy.high) for p in plan.points],
            plan.band,
        )
        for plan in plans
    ]
    about = About(pipeline=pipeline.pipeline, seed=pipeline.seed)
    write_atomically(path, plan_report(about, headline(plans, target), target, curves, *table(plans), panel))
    return path


def headline(plans: Sequence[Plan], target: float) -> str:
    """The advice in a sentence."""
    chosen = best(plans)
    if chosen is None:
        return f"Nothing that was tried leads to an accuracy of {target:g}"
    said = f"About {chosen.needed:,} questions with {chosen.overlap} answers each reach {target:g}"
    return said if chosen.shown else f"{said}, if the curve goes on"


def table(plans: Sequence[Plan]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: what each choice takes."""
    columns = ["overlap", "raters", "questions needed", "answers", "accuracy at most tried", "as a campaign sees it"]
    rows = []
    for plan in plans:
        last = plan.points[-1]
        rows.append(
            [
                str(plan.overlap), str(plan.raters), plan.words(last.questions),
                "—" if plan.answers is None else f"{plan.answers:,}",
                f"{last.accuracy} at {last.questions:,}",
                "—" if last.as_measured is None else f"{last.as_measured:.2f}",
            ]
        )  # fmt: skip
    return columns, rows
