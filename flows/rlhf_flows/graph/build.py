"""A pipeline compiled to graphs: what stands before the first round, and the two halves of each round.

Pure functions of the pipeline, of what its plugins declare, and of how the rounds before ended. Nothing runs here.
"""

from __future__ import annotations

from pydantic import JsonValue

from rlhf_core.pipeline import Ask
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import files_digest
from rlhf_flows.graph.draft import Draft, named, numbered, policy_of, role, samples_of
from rlhf_flows.graph.members import members_of
from rlhf_flows.graph.node import Graph, Input
from rlhf_flows.graph.parts import Standing
from rlhf_flows.graph.pieces import Pieces


class Compiler(Pieces):
    """Compiles one pipeline. What it takes from the registry are the plugins' own declarations."""

    def start(self) -> Graph:
        """Data, warm start, a gold judge that learns, and how good the policy is before the first round."""
        draft = self._draft(0)
        self._prepare(draft)
        self._evaluate(draft, Standing(), policy_of(0), None)
        return draft.graph()

    def prepare(self) -> Graph:
        """Data, warm start and gold judge alone: for work that is no campaign."""
        draft = self._draft(0)
        self._prepare(draft)
        return draft.graph()

    def rehearsal(self, panel: Use, judge: Use | None, settings: dict[str, JsonValue]) -> Graph:
        """A simulation of the first round's asking, behind `prepare`; with the gold judge where no other is named."""
        draft, ask = self._draft(1), self.pipeline.ask
        assert ask is not None
        draft.add(
            "rehearse",
            "rehearse:rehearse",
            "rehearsal",
            stage="answers",
            plugins=[
                self._policy_role(),
                role("selector", "selectors", ask.selector),
                self._reward_role(),
                role("panel", "annotators", panel),
                role("judge", "reward_models", judge),
                role("gold", "reward_models", self.pipeline.gold) if judge is None else None,
            ],
            settings={**settings, "samples": ask.samples, "seed": self.pipeline.seed},
            inputs={
                "data": self.parts.data,
                "policy": policy_of(0),
                "gold": self.parts.gold if judge is None else None,
            },
        )
        return draft.graph()

    def collect(self, number: int, standing: Standing) -> Graph:
        """Questions about the champion, and everybody who is asked; empty where the pipeline asks nobody."""
        draft, ask = self._draft(number), self.pipeline.ask
        if ask is not None:
            questions = self._questions(draft, ask, standing)
            for name, use in named("answers", ask.annotators):
                draft.add(
                    name,
                    "collect:ask_annotator",
                    "answers",
                    stage="answers",
                    title="collect",
                    plugins=[role("annotator", "annotators", use)],
                    inputs={"questions": questions},
                )
        return draft.graph()

    def retrain(self, number: int, standing: Standing) -> Graph:
        """From the feedback to the gate's decision."""
        draft, pipeline = self._draft(number), self.pipeline
        feedback = self._feedback(draft, standing)
        reward = self._reward(draft, pipeline.reward, feedback) if pipeline.reward is not None else None
        start = standing.champion if pipeline.start_from == "champion" else 0
        reference = standing.champion if pipeline.reference == "champion" else 0
        optimized = draft.add(
            "optimize",
            "optimize:optimize_policy",
            "policy",
            title="optimise",
            plugins=[role("optimizer", "optimizers", pipeline.optimize), self._policy_role(), self._reward_role()],
            settings={"annotators": pipeline.test.annotators} if self.parts.optimizer_hears else {},
            inputs={
                "data": self.parts.data,
                "policy": policy_of(start),
                "reference": policy_of(reference),
                "reward": reward,
                "previous": policy_of(number - 1) if number > 1 else None,
                "snapshot": feedback if self.parts.optimizer_hears else None,
            },
        )
        measured = self._evaluate(draft, standing, optimized, reward)
        decision = draft.add(
            "gate",
            "judge:decide",
            "decision",
            plugins=[role("gate", "gates", pipeline.gate)],
            inputs={
                "policy": optimized,
                **numbered("challenger", measured),
                **numbered("champion", self.parts.measured(standing.champion)),
            },
            reads_metrics=True,
        )
        at_gate = {"data": self.parts.data, "snapshot": feedback, "reward": reward, "policy": optimized}
        self._steps(draft, "after gate", decision, at_gate)
        return draft.graph()

    def _prepare(self, draft: Draft) -> None:
        pipeline = self.pipeline
        data = draft.add(
            "data", "data:read_data", "data", plugins=[role("data", "data_sources", use) for use in pipeline.data]
        )
        data = self._steps(draft, "after data", data, {})
        started = draft.add(
            "warm_start",
            "policy:warm_start",
            "policy",
            plugins=[self._policy_role(), role("warm_start", "warm_starts", pipeline.warm_start)],
            inputs={"data": data},
        )
        if self.parts.gold is not None:
            draft.add(
                "gold",
                "learn:fit_gold",
                "reward",
                title="gold judge",
                plugins=[role("gold", "reward_models", pipeline.gold), self._policy_role()],
                inputs={"snapshot": self._snapshot(draft, Standing()), "base": started},
            )

    def _questions(self, draft: Draft, ask: Ask, standing: Standing) -> Input:
        reward = self.parts.reward_of(draft.round - 1) if self.parts.selector_looks else None
        return draft.add(
            "questions",
            "collect:select_questions",
            "questions",
            title="ask",
            plugins=[
                self._policy_role(),
                role("selector", "selectors", ask.selector),
                # Questions that no reward model had a part in stay the same when only the reward model changes.
                self._reward_role() if reward is not None else None,
            ],
            settings={
                **ask.model_dump(mode="json", include={"questions", "samples", "prompts", "overlap"}),
                "seed": self.pipeline.seed,
            },
            inputs={"data": self.parts.data, "policy": policy_of(standing.champion), "reward": reward},
        )

    def _reward(self, draft: Draft, use: Use, feedback: Input | None) -> Input:
        pipeline, number = self.pipeline, draft.round
        learnt_from: dict[str, Input | None] = {}
        if self.parts.learns(use):
            previous = self.parts.reward_of(number - 1)
            learnt_from = {"snapshot": feedback, "base": policy_of(0), "previous": previous}
        tuning = self._tuning(draft, learnt_from) if pipeline.tune is not None and learnt_from else None
        learnt_from["tuning"] = tuning
        members: dict[str, Input | None] = {
            f"member_{member}": draft.add(
                f"reward_member_{member}",
                "members:fit_member",
                "reward",
                stage="reward",
                title=f"reward {member}",
                plugins=[self._reward_role(), self._policy_role()],
                settings={"annotators": pipeline.test.annotators, "member": member},
                inputs=learnt_from,
                seed_of="reward",
            )
            for member in members_of(self.registry, use, pipeline.tune)
        }
        reward = draft.add(
            "reward",
            "learn:fit_reward",
            "reward",
            plugins=[self._reward_role(), self._policy_role()],
            settings={
                "annotators": pipeline.test.annotators,
                "measure_selection": pipeline.ask is not None and pipeline.ask.measure_selection,
            },
            inputs={**learnt_from, **members},
        )
        reward = self._steps(draft, "after reward", reward, {"data": self.parts.data, "snapshot": feedback})
        if pipeline.patches:
            patches: list[JsonValue] = [{"path": str(path), "digest": files_digest(path)} for path in pipeline.patches]
            draft.add(
                "patches",
                "learn:check_patches",
                "patches",
                plugins=[self._reward_role()],
                settings={"patches": patches},
                inputs={"reward": reward},
            )
        return reward

    def _tuning(self, draft: Draft, learnt_from: dict[str, Input | None]) -> Input:
        """The search for the reward model's settings: this round's, or the first one's."""
        pipeline = self.pipeline
        assert pipeline.tune is not None
        if draft.round > 1 and pipeline.tune.rounds == "first":
            return Input(node="1/tune", kind="tuning")
        return draft.add(
            "tune",
            "tune:tune_reward",
            "tuning",
            plugins=[self._reward_role(), self._policy_role()],
            settings={"tune": pipeline.tune.model_dump(mode="json"), "annotators": pipeline.test.annotators},
            inputs=learnt_from,
        )

    def _evaluate(self, draft: Draft, standing: Standing, policy: Input, reward: Input | None) -> list[Input]:
        """Sample the held-out prompts and measure; the results whose metrics say how good the policy is."""
        pipeline, number = self.pipeline, draft.round
        test = pipeline.test.model_dump(mode="json", include={"prompts", "samples"})
        samples = draft.add(
            "samples",
            "policy:sample_test",
            "samples",
            title="sample",
            plugins=[self._policy_role()],
            settings=test,
            inputs={"data": self.parts.data, "policy": policy},
        )
        inputs = {
            "data": self.parts.data,
            "policy": policy,
            "reference": policy_of(0),
            "reward": reward,
            "gold": self.parts.gold,
            "samples_challenger": samples,
            "samples_champion": samples_of(standing.champion) if number else None,
            "samples_warm_start": samples_of(0) if number else None,
        }
        past: dict[str, Input | None] = {}
        for before in range(number):
            past[f"samples_round_{before}"] = samples_of(before)
            past |= numbered(f"past_{before}", self.parts.measured(before))
        for name, use in named("evaluate", pipeline.evaluate):
            # An evaluator that does not look back keeps its key whatever the rounds before were.
            looks_back = self.parts.looks_back(use)
            draft.add(
                name,
                "judge:evaluate",
                "evaluation",
                stage="evaluate",
                title="evaluate",
                plugins=[
                    role("evaluator", "evaluators", use),
                    self._policy_role(),
                    self._reward_role() if reward is not None else None,
                    role("gold", "reward_models", pipeline.gold),
                ],
                settings=test,
                inputs=inputs | past if looks_back else inputs,
                reads_metrics=looks_back,
            )
        return self.parts.measured(number)
