"""What the plugins of a pipeline declare, as far as the shape of its graphs depends on it; and what stands where.

A step may replace the artifact that it stands behind: what later stages take is then the step's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.parts import choose
from rlhf_core.plugins import PLACES, Selector, StepUse, Use
from rlhf_core.plugins.registry import Registry
from rlhf_flows.graph.draft import named
from rlhf_flows.graph.node import Input

NOTE = "note"
"""Kind of what a step leaves that gives nothing."""


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


class Parts:
    """A pipeline's plugins, asked for their declarations."""

    def __init__(self, pipeline: Pipeline, registry: Registry) -> None:
        self.pipeline = pipeline
        self.registry = registry

    @property
    def data(self) -> Input:
        """The data that all stages take."""
        return self._behind("after data", Input(node="0/data", kind="data"))

    @property
    def gold(self) -> Input | None:
        """The fitted gold judge; None where the pipeline has none, or one that learns nothing."""
        gold = self.pipeline.gold
        return Input(node="0/gold", kind="reward") if gold is not None and self.learns(gold) else None

    def reward_of(self, number: int) -> Input | None:
        """What stands for a round's reward model: its own, or what the last step behind it made of it."""
        if number == 0 or self.pipeline.reward is None:
            return None
        return self._behind("after reward", Input(node=f"{number}/reward", kind="reward"))

    def feedback_of(self, number: int) -> Input | None:
        """What a round learns from, after the steps; None where nothing learns from feedback."""
        if number == 0 or not self.hears:
            return None
        collected = self._behind("after collect", Input(node=f"{number}/snapshot", kind="snapshot"))
        return self._behind("before reward", collected)

    def measured(self, number: int) -> list[Input]:
        """The results whose metrics are what is known of a round's policy: its reward model's, those of the steps
        behind that, and the evaluators'.
        """
        evaluations = [
            Input(node=f"{number}/{name}", kind="evaluation") for name, _ in named("evaluate", self.pipeline.evaluate)
        ]
        if number == 0 or self.pipeline.reward is None:
            return evaluations
        steps = [self.step_output(number, name, use) for name, use in self.steps_at("after reward")]
        return [Input(node=f"{number}/reward", kind="reward"), *steps, *evaluations]

    @property
    def hears(self) -> bool:
        """Whether anything in a round learns from what people said."""
        reward = self.pipeline.reward
        return self.optimizer_hears or (reward is not None and self.learns(reward))

    @property
    def optimizer_hears(self) -> bool:
        """Whether the optimizer is handed what people said."""
        optimizer: Any = self.registry.load("optimizers", self.pipeline.optimize.use)
        return bool(optimizer.feedback_wanted(reward=self.pipeline.reward is not None))

    @property
    def selector_looks(self) -> bool:
        """Whether a selector, or one inside another, looks at the reward model."""
        if self.pipeline.ask is None:
            return False
        selectors = [part.plugin for part in choose(self.pipeline.ask, self.registry)[0] if part.kind == Selector.kind]
        return any(getattr(each, "uses_reward", False) for each in selectors)

    def learns(self, reward: Use) -> bool:
        """Whether a reward model learns from feedback, and is not made by hand."""
        return bool(getattr(self.registry.load("reward_models", reward.use), "learns_from", ()))

    def looks_back(self, evaluator: Use) -> bool:
        """Whether an evaluator looks at the rounds before."""
        return bool(getattr(self.registry.load("evaluators", evaluator.use), "looks_back", False))

    def takes(self, step: Use) -> list[str]:
        """The kinds of artifacts that a step takes, sorted."""
        plugin: Any = self.registry.load("steps", step.use)
        return sorted(plugin.takes)

    def steps_at(self, place: str) -> list[tuple[str, StepUse]]:
        """Names and uses of the steps that work at a place, in the pipeline's order."""
        assert place in PLACES, place
        return [
            (name, use)
            for name, use in named("step", self.pipeline.steps)
            if use.place == place and self.registry.load("steps", use.use).runs()  # type: ignore[attr-defined]
        ]

    def step_output(self, number: int, name: str, use: Use) -> Input:
        """What a step leaves in a round."""
        plugin: Any = self.registry.load("steps", use.use)
        return Input(node=f"{number}/{name}", kind=plugin.gives or NOTE)

    def _behind(self, place: str, stands: Input) -> Input:
        """What stands at a place after its steps."""
        number = int(stands.node.partition("/")[0])
        outputs = [self.step_output(number, name, use) for name, use in self.steps_at(place)]
        return next((each for each in reversed(outputs) if each.kind == stands.kind), stands)
