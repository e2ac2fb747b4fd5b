"""A pipeline compiled to graphs: what stands before the first round, and the two halves of each round.

Pure functions of the pipeline, of what its plugins declare, and of how the rounds before ended. Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import JsonValue

from rlhf_core.pipeline import Ask, Pipeline
from rlhf_core.pipeline.parts import choose
from rlhf_core.plugins import PLACES, Selector, StepUse, Use
from rlhf_core.plugins.registry import Registry, files_digest
from rlhf_core.records import content_id
from rlhf_flows.graph.node import Graph, Input, Node, Role, in_order, node_seed

STAGES = "rlhf_flows.stages"
"""The package of the stages' bodies."""
U = TypeVar("U", bound=Use)


@dataclass(frozen=True)
class Asked:
    """A round's questions, and the annotators who are done with them."""

    round: int
    answered: tuple[str, ...]
    """Ids of the nodes of those annotators."""


@dataclass(frozen=True)
class Standing:
    """How the rounds before ended: what the graph of a round depends on besides the pipeline."""

    champion: int = 0
    """The round whose policy is the champion; 0 is the warm start."""
    asked: tuple[Asked, ...] = ()
    """All rounds' questions so far; of the round itself, once it has collected."""


@dataclass
class _Draft:
    """The nodes of a graph under construction."""

    pipeline: str
    seed: int
    round: int
    nodes: dict[str, Node] = field(default_factory=dict)

    def add(
        self,
        name: str,
        body: str,
        gives: str,
        *,
        stage: str = "",
        title: str = "",
        plugins: Sequence[Role | None] = (),
        settings: dict[str, JsonValue] | None = None,
        inputs: dict[str, Input | None] | None = None,
        reads_metrics: bool = False,
        cached: bool = True,
    ) -> Input:
        """Add a node; what another node takes from it."""
        identity = f"{self.round}/{name}"
        self.nodes[identity] = Node(
            id=identity,
            name=name,
            stage=stage or name,
            body=f"{STAGES}.{body}",
            title=title or name.replace("_", " "),
            gives=gives,
            pipeline=self.pipeline,
            round=self.round,
            seed=node_seed(self.seed, name, self.round),
            plugins=tuple(role for role in plugins if role is not None),
            settings=settings or {},
            inputs={key: given for key, given in (inputs or {}).items() if given is not None},
            reads_metrics=reads_metrics,
            cached=cached,
        )
        return Input(node=identity, kind=gives)

    def graph(self) -> Graph:
        return Graph(pipeline=self.pipeline, round=self.round, nodes=tuple(in_order(self.nodes)))


class Compiler:
    """Compiles one pipeline. What it takes from the registry are the plugins' own declarations."""

    def __init__(self, pipeline: Pipeline, registry: Registry) -> None:
        self.pipeline = pipeline
        self.registry = registry

    def start(self) -> Graph:
        """Data, warm start, a gold judge that learns, and how good the policy is before the first round."""
        draft = self._draft(0)
        self._prepare(draft)
        self._evaluate(draft, Standing(), _policy(0), None)
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
                _role("selector", "selectors", ask.selector),
                self._reward_role(),
                _role("panel", "annotators", panel),
                _role("judge", "reward_models", judge),
                _role("gold", "reward_models", self.pipeline.gold) if judge is None else None,
            ],
            settings={**settings, "samples": ask.samples, "seed": self.pipeline.seed},
            inputs={"data": self._data, "policy": _policy(0), "gold": self._gold if judge is None else None},
        )
        return draft.graph()

    def collect(self, number: int, standing: Standing) -> Graph:
        """Questions about the champion, and everybody who is asked; empty where the pipeline asks nobody."""
        draft, ask = self._draft(number), self.pipeline.ask
        if ask is not None:
            questions = self._questions(draft, ask, standing)
            for name, use in _named("answers", ask.annotators):
                draft.add(
                    name,
                    "collect:ask_annotator",
                    "answers",
                    stage="answers",
                    title="collect",
                    plugins=[_role("annotator", "annotators", use)],
                    inputs={"questions": questions},
                )
        return draft.graph()

    def retrain(self, number: int, standing: Standing) -> Graph:
        """From the feedback to the gate's decision."""
        draft, pipeline = self._draft(number), self.pipeline
        feedback = self._feedback(draft, standing)
        reward = self._reward(draft, feedback) if pipeline.reward is not None else None
        start = standing.champion if pipeline.start_from == "champion" else 0
        reference = standing.champion if pipeline.reference == "champion" else 0
        optimized = draft.add(
            "optimize",
            "optimize:optimize_policy",
            "policy",
            title="optimise",
            plugins=[_role("optimizer", "optimizers", pipeline.optimize), self._policy_role(), self._reward_role()],
            settings={"annotators": pipeline.test.annotators} if self._optimizer_hears else {},
            inputs={
                "data": self._data,
                "policy": _policy(start),
                "reference": _policy(reference),
                "reward": reward,
                "previous": _policy(number - 1) if number > 1 else None,
                "snapshot": feedback if self._optimizer_hears else None,
            },
        )
        measured = self._evaluate(draft, standing, optimized, reward)
        decision = draft.add(
            "gate",
            "judge:decide",
            "decision",
            plugins=[_role("gate", "gates", pipeline.gate)],
            inputs={
                "policy": optimized,
                **_numbered("challenger", measured),
                **_numbered("champion", self.measured(standing.champion)),
            },
            reads_metrics=True,
        )
        at_gate = {"data": self._data, "snapshot": feedback, "reward": reward, "policy": optimized}
        self._steps(draft, "after gate", decision, at_gate)
        return draft.graph()

    def measured(self, number: int) -> list[Input]:
        """The results whose metrics are what is known of a round's policy: its reward model's and the evaluators'."""
        names = [name for name, _ in _named("evaluate", self.pipeline.evaluate)]
        evaluations = [Input(node=f"{number}/{name}", kind="evaluation") for name in names]
        if number == 0 or self.pipeline.reward is None:
            return evaluations
        reward = [Input(node=f"{number}/reward", kind="reward")]
        steps = [self._step_output(number, name, use) for name, use in self._steps_at("after reward")]
        return [*reward, *(step for step in steps if step is not None), *evaluations]

    def reward_of(self, number: int) -> Input | None:
        """What stands for a round's reward model: its own, or what the last step behind it made of it."""
        if number == 0 or self.pipeline.reward is None:
            return None
        steps = [self._step_output(number, name, use) for name, use in self._steps_at("after reward")]
        given = [step for step in steps if step is not None and step.kind == "reward"]
        return given[-1] if given else Input(node=f"{number}/reward", kind="reward")

    @property
    def _data(self) -> Input:
        given = [self._step_output(0, name, use) for name, use in self._steps_at("after data")]
        replaced = [step for step in given if step is not None and step.kind == "data"]
        return replaced[-1] if replaced else Input(node="0/data", kind="data")

    @property
    def _gold(self) -> Input | None:
        gold = self.pipeline.gold
        if gold is None or not _learns(self.registry, gold):
            return None
        return Input(node="0/gold", kind="reward")

    @property
    def _optimizer_hears(self) -> bool:
        """Whether the optimizer is handed what people said."""
        optimizer: Any = self.registry.load("optimizers", self.pipeline.optimize.use)
        return bool(optimizer.feedback_wanted(reward=self.pipeline.reward is not None))

    def _draft(self, number: int) -> _Draft:
        return _Draft(self.pipeline.pipeline, self.pipeline.seed, number)

    def _policy_role(self) -> Role:
        return Role(role="policy", kind="policies", use=self.pipeline.policy)

    def _reward_role(self) -> Role | None:
        return _role("reward", "reward_models", self.pipeline.reward)

    def _prepare(self, draft: _Draft) -> None:
        pipeline = self.pipeline
        data = draft.add(
            "data", "data:read_data", "data", plugins=[_role("data", "data_sources", use) for use in pipeline.data]
        )
        data = self._steps(draft, "after data", data, {})
        started = draft.add(
            "warm_start",
            "policy:warm_start",
            "policy",
            plugins=[self._policy_role(), _role("warm_start", "warm_starts", pipeline.warm_start)],
            inputs={"data": data},
        )
        if self._gold is not None:
            draft.add(
                "gold",
                "learn:fit_gold",
                "reward",
                title="gold judge",
                plugins=[_role("gold", "reward_models", pipeline.gold), self._policy_role()],
                inputs={"snapshot": self._snapshot(draft, Standing()), "base": started},
            )

    def _questions(self, draft: _Draft, ask: Ask, standing: Standing) -> Input:
        selectors = [part.plugin for part in choose(ask, self.registry)[0] if part.kind == Selector.kind]
        looks = any(getattr(each, "uses_reward", False) for each in selectors)
        reward = self.reward_of(draft.round - 1) if looks else None
        return draft.add(
            "questions",
            "collect:select_questions",
            "questions",
            title="ask",
            plugins=[
                self._policy_role(),
                _role("selector", "selectors", ask.selector),
                # Questions that no reward model had a part in stay the same when only the reward model changes.
                self._reward_role() if reward is not None else None,
            ],
            settings={
                **ask.model_dump(mode="json", include={"questions", "samples", "prompts", "overlap"}),
                "seed": self.pipeline.seed,
            },
            inputs={"data": self._data, "policy": _policy(standing.champion), "reward": reward},
        )

    def _snapshot(self, draft: _Draft, standing: Standing) -> Input:
        pipeline, inputs = self.pipeline, {"data": self._data}
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
            plugins=[_role("converter", "converters", use) for use in (pipeline.ask.convert if pipeline.ask else ())],
            settings={"asked": [f"{asked.round} {asked_of}" for asked in standing.asked]},
            inputs=dict(inputs),
            cached=False,
        )

    def _feedback(self, draft: _Draft, standing: Standing) -> Input | None:
        """The feedback that is learnt from; None where nothing learns from any."""
        reward = self.pipeline.reward
        if not self._optimizer_hears and (reward is None or not _learns(self.registry, reward)):
            return None
        feedback = self._snapshot(draft, standing)
        for place in ("after collect", "before reward"):
            feedback = self._steps(draft, place, feedback, {"data": self._data})
        return feedback

    def _reward(self, draft: _Draft, feedback: Input | None) -> Input:
        pipeline, number = self.pipeline, draft.round
        learnt_from = {"snapshot": feedback, "base": _policy(0), "previous": self.reward_of(number - 1)}
        tuning = self._tuning(draft, learnt_from) if pipeline.tune is not None and feedback is not None else None
        reward = draft.add(
            "reward",
            "learn:fit_reward",
            "reward",
            plugins=[self._reward_role(), self._policy_role()],
            settings={
                "annotators": pipeline.test.annotators,
                "measure_selection": pipeline.ask is not None and pipeline.ask.measure_selection,
            },
            inputs={**learnt_from, "tuning": tuning},
        )
        reward = self._steps(draft, "after reward", reward, {"data": self._data, "snapshot": feedback})
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

    def _tuning(self, draft: _Draft, learnt_from: dict[str, Input | None]) -> Input:
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

    def _evaluate(self, draft: _Draft, standing: Standing, policy: Input, reward: Input | None) -> list[Input]:
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
            inputs={"data": self._data, "policy": policy},
        )
        inputs = {
            "data": self._data,
            "policy": policy,
            "reference": _policy(0),
            "reward": reward,
            "gold": self._gold,
            "samples_challenger": samples,
            "samples_champion": _samples(standing.champion) if number else None,
            "samples_warm_start": _samples(0) if number else None,
        }
        past: dict[str, Input | None] = {}
        for before in range(number):
            past[f"samples_round_{before}"] = _samples(before)
            past |= _numbered(f"past_{before}", self.measured(before))
        for name, use in _named("evaluate", pipeline.evaluate):
            # An evaluator that does not look back keeps its key whatever the rounds before were.
            looks_back = bool(getattr(self.registry.load("evaluators", use.use), "looks_back", False))
            draft.add(
                name,
                "judge:evaluate",
                "evaluation",
                stage="evaluate",
                title="evaluate",
                plugins=[
                    _role("evaluator", "evaluators", use),
                    self._policy_role(),
                    self._reward_role() if reward is not None else None,
                    _role("gold", "reward_models", pipeline.gold),
                ],
                settings=test,
                inputs=inputs | past if looks_back else inputs,
                reads_metrics=looks_back,
            )
        return self.measured(number)

    def _steps(self, draft: _Draft, place: str, stands: Input, others: dict[str, Input | None]) -> Input:
        """Add the steps at a place; what stands there afterwards."""
        for name, use in self._steps_at(place):
            step: Any = self.registry.load("steps", use.use)
            there = {**others, stands.kind: stands}
            given = self._step_output(draft.round, name, use)
            draft.add(
                name,
                "step:run_step",
                given.kind if given is not None else "note",
                stage="steps",
                title=use.use.rpartition("/")[2],
                plugins=[Role(role="step", kind="steps", use=Use(use=use.use, **use.options))],
                inputs={kind: there[kind] for kind in sorted(step.takes)},
                reads_metrics=place == "after gate",
            )
            if given is not None and given.kind == stands.kind:
                stands = given
        return stands

    def _steps_at(self, place: str) -> list[tuple[str, StepUse]]:
        """Names and uses of the steps that work at a place, in the pipeline's order."""
        assert place in PLACES, place
        named = _named("step", self.pipeline.steps)
        return [
            (name, use)
            for name, use in named
            if use.place == place and self.registry.load("steps", use.use).runs()  # type: ignore[attr-defined]
        ]

    def _step_output(self, number: int, name: str, use: StepUse) -> Input | None:
        gives: str = getattr(self.registry.load("steps", use.use), "gives", "")
        return Input(node=f"{number}/{name}", kind=gives) if gives else None


def policy_node(number: int) -> str:
    """Id of the node that makes a round's policy."""
    return f"{number}/optimize" if number else "0/warm_start"


def _policy(number: int) -> Input:
    return Input(node=policy_node(number), kind="policy")


def _samples(number: int) -> Input:
    return Input(node=f"{number}/samples", kind="samples")


def _role(role: str, kind: str, use: Use | None) -> Role | None:
    return None if use is None else Role(role=role, kind=kind, use=use)


def _named(prefix: str, uses: Sequence[U]) -> list[tuple[str, U]]:
    """Plugins with the names of their stages: `PREFIX_plugin`, with its place where one name stands twice."""
    found: list[tuple[str, U]] = []
    for place, use in enumerate(uses):
        name = f"{prefix}_{use.use.rpartition('/')[2]}"
        taken = {known for known, _ in found}
        found.append((f"{name}_{place}" if name in taken else name, use))
    return found


def _numbered(prefix: str, given: Sequence[Input]) -> dict[str, Input | None]:
    return {f"{prefix}_{i}": each for i, each in enumerate(given)}


def _learns(registry: Registry, use: Use) -> bool:
    return bool(getattr(registry.load("reward_models", use.use), "learns_from", ()))
