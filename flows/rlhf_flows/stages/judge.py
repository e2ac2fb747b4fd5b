"""Judging: evaluators measure the challenger, the gate decides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from rlhf_core.metrics import Metric
from rlhf_core.plugins import EvaluateJob, Evaluator, Gate, PastRound
from rlhf_core.records import Prompt
from rlhf_flows.stages.artifacts_io import load_policy, load_proxy, load_reward, read_samples, test_prompts
from rlhf_flows.stages.context import Outcome, StageContext, StageResult

POLICIES = ("challenger", "champion", "warm_start")


def evaluate(context: StageContext) -> Outcome:
    """Measure the challenger's samples against those of the champion and the warm start."""
    prompts = test_prompts(context)
    evaluator: Evaluator = context.create("evaluator")
    found = evaluator.evaluate(
        EvaluateJob(
            prompts=prompts,
            samples={
                name: read_samples(context.need(f"samples_{name}"), prompts)
                for name in POLICIES
                if f"samples_{name}" in context.results
            },
            policy=load_policy(context, "policy"),
            reference=load_policy(context, "reference"),
            reward=load_proxy(context) if "reward" in context.results else None,
            gold=load_reward(context, "gold", "gold") if context.use("gold") is not None else None,
            past=_past(context, prompts),
        )
    )
    (context.draft / "tables.json").write_text(json.dumps(found.tables))
    shown = ", ".join(f"{name} {metric}" for name, metric in list(found.metrics.items())[:2])
    return Outcome(found.metrics, {"summary": shown})


def _past(context: StageContext, prompts: list[Prompt]) -> list[PastRound]:
    """The finished rounds, for an evaluator that looks back; for another the stage was not given any."""
    found: list[PastRound] = []
    while (name := f"samples_round_{len(found)}") in context.results:
        number = len(found)
        metrics = merged(given(context.results, f"past_{number}_"))
        found.append(PastRound(number, read_samples(context.need(name), prompts), metrics))
    return found


def decide(context: StageContext) -> Outcome:
    """Promote or not, with reasons. The gate sees what was measured of the challenger, and of the champion.

    What was measured of the challenger goes with the decision, for the steps after it.
    """
    gate: Gate = context.create("gate")
    gate.round = context.node.round
    challenger, champion = (merged(given(context.results, f"{side}_")) for side in ("challenger", "champion"))
    decision = gate.decide(challenger, champion)
    (context.draft / "decision.json").write_text(decision.model_dump_json())
    reasons = list[JsonValue](decision.reasons)
    return Outcome(
        challenger, {"promote": decision.promote, "reasons": reasons, "summary": "; ".join(decision.reasons)}
    )


def given(results: Mapping[str, StageResult], prefix: str) -> list[StageResult]:
    """The results behind the inputs `PREFIX0`, `PREFIX1`, ... of a node, in that order."""
    found: list[StageResult] = []
    while (name := f"{prefix}{len(found)}") in results:
        found.append(results[name])
    return found


def merged(results: Iterable[StageResult]) -> dict[str, Metric]:
    """All metrics of several results; of one name the last."""
    return {name: metric for result in results for name, metric in result.metrics.items()}
