"""Judging: evaluators measure the challenger, the gate decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_core.metrics import Metric
from rlhf_core.plugins import EvaluateJob, Evaluator, Gate, PastRound, Use
from rlhf_core.records import Prompt
from rlhf_flows.stage import Outcome, StageContext
from rlhf_flows.steps.artifacts_io import load_policy, load_proxy, load_reward, read_samples, test_prompts


@dataclass(frozen=True)
class Evaluate:
    """One evaluator of the pipeline, as a stage."""

    use: Use

    def __call__(self, context: StageContext) -> Outcome:
        """Measure the challenger's samples against those of the champion and the warm start."""
        pipeline = context.pipeline
        prompts = test_prompts(context)
        evaluator: Evaluator = context.create("evaluators", self.use)
        found = evaluator.evaluate(
            EvaluateJob(
                prompts=prompts,
                samples={
                    name: read_samples(context.need(f"samples_{name}"), prompts)
                    for name in ("challenger", "champion", "warm_start")
                    if context.input(f"samples_{name}") is not None
                },
                policy=load_policy(context, "policy"),
                reference=load_policy(context, "reference"),
                reward=load_proxy(context) if context.input("reward") is not None else None,
                gold=load_reward(context, "gold", pipeline.gold) if pipeline.gold is not None else None,
                past=_past(context, prompts),
            )
        )
        (context.draft / "tables.json").write_text(json.dumps(found.tables))
        shown = ", ".join(f"{name} {metric}" for name, metric in list(found.metrics.items())[:2])
        return Outcome(found.metrics, {"summary": shown})


def _past(context: StageContext, prompts: list[Prompt]) -> list[PastRound]:
    """The finished rounds, for an evaluator that looks back; for another the stage was not given any."""
    history = context.stage.settings.get("history", [])
    assert isinstance(history, list)
    found = []
    for number, metrics in enumerate(history):
        assert isinstance(metrics, dict)
        samples = read_samples(context.need(f"samples_round_{number}"), prompts)
        known = {name: Metric.model_validate(metric) for name, metric in metrics.items()}
        found.append(PastRound(number, samples, known))
    return found


@dataclass(frozen=True)
class Decide:
    """The gate, with the metrics it decides on (which are part of the stage's settings)."""

    challenger: Mapping[str, Metric]
    champion: Mapping[str, Metric]

    def __call__(self, context: StageContext) -> Outcome:
        """Promote or not, with reasons."""
        gate: Gate = context.create("gates", context.pipeline.gate)
        gate.round = context.stage.round
        decision = gate.decide(self.challenger, self.champion)
        (context.draft / "decision.json").write_text(decision.model_dump_json())
        return Outcome(info={"promote": decision.promote, "reasons": list(decision.reasons),
                             "summary": "; ".join(decision.reasons)})  # fmt: skip
