"""The loop itself: which stages a campaign is made of, and what flows from one into the next.

Nothing here works or waits: an engine turns each stage into its result, by working (`engine`) or by looking whether it
is known (`dry_run`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from rlhf_core.errors import Waiting
from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Ask, Pipeline
from rlhf_core.pipeline.parts import choose
from rlhf_core.plugins import Selector
from rlhf_core.plugins.registry import Registry, files_digest
from rlhf_flows.artifacts import Ref
from rlhf_flows.engine import Engine
from rlhf_flows.promotions import Promotion, champion_round
from rlhf_flows.stage import Stage, StageResult
from rlhf_flows.steps import collect, data, judge, learn, policy, tune
from rlhf_flows.waits import Wait


@dataclass(frozen=True)
class Contender:
    """A policy with all that is known about it."""

    round: int
    policy: Ref
    samples: Ref
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Collected:
    """What one round asked, and who answered."""

    questions: Ref
    answers: tuple[Ref, ...]
    """Of the annotators who are done."""
    asked: tuple[str, ...] = ()
    """The keys of the stages that asked each annotator, done or not."""


@dataclass(frozen=True)
class Round:
    """A finished round."""

    number: int
    contender: Contender
    promoted: bool
    reasons: tuple[str, ...]
    evaluations: tuple[Ref, ...]
    snapshot: StageResult | None = None
    reward: Ref | None = None
    optimized: Ref | None = None
    parent: Ref | None = None
    tuning: Ref | None = None
    """The search whose settings the reward model was fitted with."""


@dataclass
class Campaign:
    """The rounds of one pipeline, in order. `rounds[0]` is the warm start, the first champion."""

    pipeline: Pipeline
    registry: Registry
    engine: Engine
    rounds: list[Round] = field(default_factory=list)
    collected: list[Collected] = field(default_factory=list)
    data: Ref | None = None
    gold: Ref | None = None
    chosen: Sequence[Promotion] = ()
    """Champions that people chose over the gate's."""
    waits_for: Wait | None = None
    """Whom the campaign waits for, once `collect` has raised Waiting."""

    @property
    def champion(self) -> Contender:
        """The promoted policy."""
        return self.champion_before(len(self.rounds)).contender

    def champion_before(self, number: int) -> Round:
        """The round whose policy is the champion that round `number` meets."""
        return self.rounds[champion_round([done.promoted for done in self.rounds[:number]], self.chosen)]

    @property
    def warm_start(self) -> Contender:
        """The policy that the campaign began with."""
        return self.rounds[0].contender

    def prepare(self) -> Ref:
        """Read the data and prepare the policy and the gold judge; the warm-started policy."""
        pipeline = self.pipeline
        self.data = self._run(
            Stage(
                "data", data.read_data, "data", "data",
                plugins=tuple(("data_sources", use) for use in pipeline.data),
                settings={"pipeline": pipeline.pipeline},
            )
        ).ref  # fmt: skip
        warm_starts = () if pipeline.warm_start is None else (("warm_starts", pipeline.warm_start),)
        started = self._run(
            Stage(
                "warm_start", policy.warm_start, "warm start", "policy",
                plugins=(("policies", pipeline.policy), *warm_starts),
                inputs={"data": self.data},
            )
        ).ref  # fmt: skip
        if pipeline.gold is not None and _learns(self.registry, pipeline):
            snapshot = self._snapshot(0, [])
            self.gold = self._run(
                Stage(
                    "gold", learn.fit_gold, "gold judge", "reward",
                    plugins=(("reward_models", pipeline.gold), ("policies", pipeline.policy)),
                    inputs={"snapshot": snapshot.ref, "base": started},
                )
            ).ref  # fmt: skip
        return started

    def start(self) -> None:
        """Prepare everything and measure the policy: the first champion."""
        started = self.prepare()
        contender, evaluations = self._evaluate(0, started, None)
        self.rounds.append(Round(0, contender, True, ("the warm start is the first champion",), evaluations))

    def collect(self, wait: bool = True) -> None:
        """Ask about the champion's samples. Does nothing where the pipeline asks nobody.

        Raises Waiting where people have not answered enough yet; without `wait`, it goes on with what they have.
        """
        ask, number = self.pipeline.ask, len(self.rounds)
        if ask is None:
            return
        questions = self._run(self._questions(ask)).ref
        answers: list[Ref] = []
        asked: list[str] = []
        waiting: dict[int, Waiting] = {}
        for i, use in enumerate(ask.annotators):
            stage = Stage(
                f"answers_{use.use}" + (f"_{i}" if ask.annotators.index(use) != i else ""),
                collect.AskAnnotator(use), "collect", "answers", number,
                plugins=(("annotators", use),),
                settings={"pipeline": self.pipeline.pipeline},
                inputs={"questions": questions},
            )  # fmt: skip
            asked.append(stage.key(self.pipeline, self.registry))
            try:
                answers.append(self._run(stage).ref)
            except Waiting as error:
                waiting[i] = error  # the others can be asked meanwhile
        if waiting and wait:
            self.waits_for = Wait(round=number, questions=questions, annotators=tuple(waiting))
            raise next(iter(waiting.values()))
        self.collected.append(Collected(questions, tuple(answers), tuple(asked)))

    def is_collected(self) -> bool:
        """Whether the questions of the coming round were selected before."""
        ask = self.pipeline.ask
        return ask is not None and self.engine.knows(self._questions(ask))

    def _questions(self, ask: Ask) -> Stage:
        selectors = [part.plugin for part in choose(ask, self.registry)[0] if part.kind == Selector.kind]
        reward = self.rounds[-1].reward if any(getattr(each, "uses_reward", False) for each in selectors) else None
        # Questions that no reward model had a part in stay the same when only the reward model changes.
        judges = (("reward_models", self.pipeline.reward),) if reward else ()
        return Stage(
            "questions", collect.select_questions, "ask", "questions", len(self.rounds),
            plugins=(("policies", self.pipeline.policy), ("selectors", ask.selector), *judges),
            settings={
                **ask.model_dump(mode="json", include={"questions", "samples", "prompts", "overlap"}),
                "seed": self.pipeline.seed,
            },
            inputs={"data": self.data, "policy": self.champion.policy, "reward": reward},
        )  # fmt: skip

    def retrain(self) -> Round:
        """Learn from all feedback so far, improve the policy, measure it, decide."""
        pipeline, number, before = self.pipeline, len(self.rounds), self.rounds[-1]
        reward_plugin = ("reward_models", pipeline.reward)
        policy_plugin = ("policies", pipeline.policy)
        snapshot = self._snapshot(number, self.collected) if _needs_feedback(self.registry, pipeline) else None
        learnt_from = {
            "snapshot": snapshot.ref if snapshot else None,
            "base": self.warm_start.policy,
            "previous": before.reward,
        }
        tuning = self._tune(number, learnt_from) if pipeline.tune is not None and snapshot else None
        reward = self._run(
            Stage(
                "reward", learn.fit_reward, "reward", "reward", number,
                plugins=(reward_plugin, policy_plugin),
                inputs=learnt_from | ({"tuning": tuning} if tuning else {}),
                settings={
                    "annotators": pipeline.test.annotators,
                    "measure_selection": pipeline.ask is not None and pipeline.ask.measure_selection,
                },
            )
        )  # fmt: skip
        if pipeline.patches:
            self._run(
                Stage(
                    "patches", learn.check_patches, "patches", "patches", number,
                    plugins=(reward_plugin,),
                    settings={"patches": [files_digest(path) for path in pipeline.patches]},
                    inputs={"reward": reward.ref},
                )
            )  # fmt: skip
        champion = self.champion
        start = champion if pipeline.start_from == "champion" else self.warm_start
        reference = champion if pipeline.reference == "champion" else self.warm_start
        optimized = self._run(
            Stage(
                "optimize", learn.optimize_policy, "optimise", "policy", number,
                plugins=(("optimizers", pipeline.optimize), policy_plugin, reward_plugin),
                inputs={
                    "data": self.data,
                    "policy": start.policy,
                    "reference": reference.policy,
                    "reward": reward.ref,
                    "previous": before.optimized,
                },
            )
        )  # fmt: skip
        contender, evaluations = self._evaluate(number, optimized.ref, reward.ref, reward.metrics)
        decision = self._run(
            Stage(
                "gate", judge.Decide(contender.metrics, champion.metrics), "gate", "decision", number,
                plugins=(("gates", pipeline.gate),),
                settings={
                    side: _plain(metrics)
                    for side, metrics in (("challenger", contender.metrics), ("champion", champion.metrics))
                },
                inputs={"policy": optimized.ref},
            )
        )  # fmt: skip
        reasons = decision.info.get("reasons", [])
        assert isinstance(reasons, list)
        done = Round(
            number=number,
            contender=contender,
            promoted=bool(decision.info.get("promote")),
            reasons=tuple(str(reason) for reason in reasons),
            evaluations=evaluations,
            snapshot=snapshot,
            reward=reward.ref,
            optimized=optimized.ref,
            parent=start.policy,
            tuning=tuning,
        )
        self.rounds.append(done)
        return done

    def _tune(self, number: int, learnt_from: Mapping[str, Ref | None]) -> Ref:
        """The search for the reward model's settings: this round's, or the first one's."""
        pipeline, known = self.pipeline, self.rounds[-1].tuning
        assert pipeline.tune is not None
        if known is not None and pipeline.tune.rounds == "first":
            return known
        return self._run(
            Stage(
                "tune", tune.tune_reward, "tune", "tuning", number,
                plugins=(("reward_models", pipeline.reward), ("policies", pipeline.policy)),
                settings={**pipeline.tune.model_dump(mode="json"), "annotators": pipeline.test.annotators},
                inputs=learnt_from,
            )
        ).ref  # fmt: skip

    def _run(self, stage: Stage) -> StageResult:
        return self.engine.run(stage)

    def _snapshot(self, number: int, collected: list[Collected]) -> StageResult:
        inputs: dict[str, Ref | None] = {"data": self.data}
        for i, asked in enumerate(collected, start=1):
            inputs[f"questions_{i}"] = asked.questions
            inputs |= {f"answers_{i}_{j}": answers for j, answers in enumerate(asked.answers)}
        return self._run(
            Stage(
                "snapshot", collect.take_snapshot, "snapshot", "snapshot", number,
                plugins=tuple(("converters", use) for use in (self.pipeline.ask.convert if self.pipeline.ask else ())),
                settings={"asked": [key for asked in collected for key in asked.asked]}, inputs=inputs, cached=False,
            )
        )  # fmt: skip

    def _evaluate(
        self, number: int, policy_ref: Ref, reward: Ref | None, reward_metrics: Mapping[str, Metric] | None = None
    ) -> tuple[Contender, tuple[Ref, ...]]:
        pipeline = self.pipeline
        # The key knows nothing of the round here: a policy's answers are drawn once and serve in every later round.
        samples = self._run(
            Stage(
                "samples", policy.sample_test, "evaluate", "samples", number,
                plugins=(("policies", pipeline.policy),),
                settings=pipeline.test.model_dump(mode="json"),
                inputs={"data": self.data, "policy": policy_ref},
            )
        ).ref  # fmt: skip
        inputs = {
            "data": self.data,
            "policy": policy_ref,
            "reference": self.warm_start.policy if self.rounds else policy_ref,
            "reward": reward,
            "gold": self.gold,
            "samples_challenger": samples,
            "samples_champion": self.champion.samples if self.rounds else None,
            "samples_warm_start": self.warm_start.samples if self.rounds else None,
        }
        past = {f"samples_round_{done.number}": done.contender.samples for done in self.rounds}
        history = [_plain(done.contender.metrics) for done in self.rounds]
        metrics: dict[str, Metric] = dict(reward_metrics or {})
        evaluations = []
        judges = () if pipeline.gold is None else (("reward_models", pipeline.gold),)
        for i, use in enumerate(pipeline.evaluate):
            # An evaluator that does not look back keeps its key whatever the rounds before were.
            looks_back = getattr(self.registry.load("evaluators", use.use), "looks_back", False)
            found = self._run(
                Stage(
                    f"evaluate_{use.use}" + (f"_{i}" if pipeline.evaluate.index(use) != i else ""),
                    judge.Evaluate(use), "evaluate", "evaluation", number,
                    plugins=(
                        ("evaluators", use), ("policies", pipeline.policy), ("reward_models", pipeline.reward), *judges
                    ),
                    settings={**pipeline.test.model_dump(mode="json"), **({"history": history} if looks_back else {})},
                    inputs={**inputs, **past} if looks_back else inputs,
                )
            )  # fmt: skip
            metrics |= found.metrics
            evaluations.append(found.ref)
        return Contender(number, policy_ref, samples, metrics), tuple(evaluations)


def _plain(metrics: Mapping[str, Metric]) -> dict[str, JsonValue]:
    """Metrics as JSON, for the settings that a stage's key is made of."""
    return {name: metric.model_dump(mode="json") for name, metric in metrics.items()}


def _learns(registry: Registry, pipeline: Pipeline) -> bool:
    assert pipeline.gold is not None
    return bool(getattr(registry.load("reward_models", pipeline.gold.use), "learns_from", ()))


def _needs_feedback(registry: Registry, pipeline: Pipeline) -> bool:
    return bool(getattr(registry.load("reward_models", pipeline.reward.use), "learns_from", ()))
