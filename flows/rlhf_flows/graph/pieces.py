"""Pieces that several graphs of a pipeline are made of: the feedback, steps of one's own, the plugins' roles."""

from __future__ import annotations

from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_flows.graph.draft import Draft, role
from rlhf_flows.graph.node import Input, Role
from rlhf_flows.graph.parts import Parts, Standing


class Pieces:
    """Adds pieces to drafts of one pipeline's graphs."""

    def __init__(self, pipeline: Pipeline, registry: Registry) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.parts = Parts(pipeline, registry)

    def _draft(self, number: int) -> Draft:
        return Draft(self.pipeline.pipeline, self.pipeline.seed, number)

    def _policy_role(self) -> Role:
        return Role(role="policy", kind="policies", use=self.pipeline.policy)

    def _reward_role(self) -> Role | None:
        return role("reward", "reward_models", self.pipeline.reward)

    def _snapshot(self, draft: Draft, standing: Standing) -> Input:
        pipeline, inputs = self.pipeline, {"data": self.parts.data}
        for asked in standing.asked:
            inputs[f"questions_{asked.round}"] = Input(node=f"{asked.round}/questions", kind="questions")
            for i, node in enumerate(asked.answered):
                inputs[f"answers_{asked.round}_{i}"] = Input(node=node, kind="answers")
        annotators = pipeline.ask.annotators if pipeline.ask else ()
        # Whoever is asked is part of what a snapshot is of: other annotators, another moment at which it is taken.
        asked_of = content_id([self.registry.fingerprint("annotators", use) for use in annotators])
        return draft.add(
            "snapshot",
            "collect:take_snapshot",
            "snapshot",
            plugins=[role("converter", "converters", use) for use in (pipeline.ask.convert if pipeline.ask else ())],
            settings={"asked": [f"{asked.round} {asked_of}" for asked in standing.asked]},
            inputs=dict(inputs),
            cached=False,
        )

    def _feedback(self, draft: Draft, standing: Standing) -> Input | None:
        """The feedback that is learnt from; None where nothing learns from any."""
        if not self.parts.hears:
            return None
        feedback = self._snapshot(draft, standing)
        for place in ("after collect", "before reward"):
            feedback = self._steps(draft, place, feedback, {"data": self.parts.data})
        return feedback

    def _steps(self, draft: Draft, place: str, stands: Input, others: dict[str, Input | None]) -> Input:
        """Add the steps at a place; what stands there afterwards."""
        for name, use in self.parts.steps_at(place):
            there = {**others, stands.kind: stands}
            takes = self.parts.takes(use)
            given = draft.add(
                name,
                "step:run_step",
                self.parts.step_output(draft.round, name, use).kind,
                stage="steps",
                title=use.use.rpartition("/")[2],
                plugins=[
                    Role(role="step", kind="steps", use=Use(use=use.use, **use.options)),
                    # A step that takes one of these may load it, with the plugin that made it.
                    self._reward_role() if "reward" in takes else None,
                    self._policy_role() if {"policy", "reward"} & set(takes) else None,
                ],
                # What stands at its place comes first, also for a step that takes something else.
                inputs={kind: there[kind] for kind in sorted({*takes, stands.kind})},
                reads_metrics=True,
            )
            if given.kind == stands.kind:
                stands = given
        return stands
