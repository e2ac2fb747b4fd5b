"""Plugins of every kind that do nothing, for tests of what is read from classes and configs alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlhf_core import (
    CONTROL,
    TEXT,
    Annotator,
    Comparison,
    Converter,
    DataSource,
    Evaluator,
    Gate,
    LanguageModelPolicy,
    Optimizer,
    PluginConfig,
    Policy,
    Ranking,
    Rating,
    Reaction,
    RewardModel,
    Selector,
    Step,
    StepOutcome,
    Use,
    WarmStart,
)
from rlhf_core.plugins.registry import PluginInfo, Registry


class Prompts(DataSource):
    """Prompts, and clicks where asked for."""

    class Config(PluginConfig):
        prompts: int = Field(10, ge=1)
        """How many."""
        clicks: bool = False
        """Whether it brings clicks."""

    @classmethod
    def yields(cls, config):
        return frozenset({Reaction}) if config.clicks else frozenset()


class Cart(DataSource):
    """Episodes."""

    modality = CONTROL


class Model(LanguageModelPolicy):
    """A language model."""

    class Config(PluginConfig):
        model: str
        """Name or folder."""


class Balancer(Policy):
    """A controller."""

    modality = CONTROL


class Imitate(WarmStart):
    """Fine-tuning."""

    trains = LanguageModelPolicy


class First(Selector):
    """The first ones."""


class Pairs(Annotator):
    """Compares."""

    yields = {Comparison}

    class Config(PluginConfig):
        raters: int = 3
        """How many raters."""
        judge: Annotated[Use | None, Use.of("reward_models")] = None
        """Whose opinion they hold."""


class Clicked(Converter):
    """Compares what was clicked."""

    takes = {Reaction}
    yields = {Comparison}


class Ranks(Annotator):
    """Ranks."""

    yields = (Ranking,)


class Rates(Annotator):
    """Rates."""

    yields = [Rating]


class Clicks(Annotator):
    """Clicks."""

    yields = {Reaction}


class Schedule(BaseModel):
    """A learning-rate schedule."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    peak: float = 1e-3
    """Highest rate."""


class Bt(RewardModel):
    """Bradley-Terry."""

    learns_from = {Comparison}

    class Config(PluginConfig):
        epochs: int = Field(1, ge=1)
        """Passes over the feedback."""
        rate: float = 1e-3
        """Learning rate."""
        schedule: Schedule = Schedule()
        """How the rate changes."""
        stop: Literal["early", "never"] = "early"
        """When to stop."""
        limit: int | Literal["none"] = "none"
        """Longest answer."""


class Ctr(RewardModel):
    """Click-through rate."""

    learns_from = {Reaction}


class Words(RewardModel):
    """Counts words; learns nothing."""


class Climb(Optimizer):
    """Trains language models."""

    modality = TEXT
    trains = LanguageModelPolicy


class Evolve(Optimizer):
    """Trains any policy."""


class Listen(Optimizer):
    """Learns from comparisons; from a reward where there is one."""

    modality = TEXT
    needs_reward = False
    learns_from = {Comparison}

    @classmethod
    def feedback_wanted(cls, *, reward):
        return frozenset() if reward else frozenset(cls.learns_from)


class Wins(Evaluator):
    """Win rate."""

    class Config(PluginConfig):
        judge: Literal["gold", "reward"] = "reward"
        """Who judges."""

    @classmethod
    def produces(cls, config):
        return frozenset({"win_rate"})

    @classmethod
    def needs_reward(cls, config):
        return config.judge == "reward"


class Lengths(Evaluator):
    """Length."""

    @classmethod
    def produces(cls, config):
        return frozenset({"length", "entropy"})


class Threshold(Gate):
    """Reads metrics."""

    class Config(PluginConfig):
        metrics: tuple[str, ...] = ("win_rate", "reward_accuracy")
        """Which."""

    @classmethod
    def needs(cls, config):
        return frozenset(config.metrics)


class Clean(Step):
    """Cleans the data."""

    takes = {"data"}
    gives = "data"

    class Config(PluginConfig):
        strictness: float = 0.5
        """How much is cleaned."""

    def step(self, job):
        return StepOutcome()


class Recheck(Step):
    """Looks at a fitted reward model."""

    takes = {"reward", "snapshot"}

    def step(self, job):
        return StepOutcome()


class Tell(Step):
    """Hears what happens."""

    hears = {"waiting"}


class Sure(Selector):
    """Looks at the reward model."""

    uses_reward = True


KINDS = {
    "data_sources": (Prompts, Cart),
    "policies": (Model, Balancer),
    "warm_starts": (Imitate,),
    "selectors": (First, Sure),
    "converters": (Clicked,),
    "annotators": (Pairs, Ranks, Rates, Clicks),
    "reward_models": (Bt, Ctr, Words),
    "optimizers": (Climb, Evolve, Listen),
    "evaluators": (Wins, Lengths),
    "gates": (Threshold,),
    "steps": (Clean, Recheck, Tell),
}
STUBS = [
    PluginInfo(kind, plugin.__name__.lower(), "stubs", "1.0", f"{__name__}:{plugin.__name__}")
    for kind, plugins in KINDS.items()
    for plugin in plugins
]
STUBS.append(PluginInfo("annotators", "crashing", "wrecks", "0.3", "no_such_module:Crashing"))
RANDOM = PluginInfo("selectors", "random", "stubs", "1.0", f"{__name__}:First")


def stub_registry() -> Registry:
    return Registry(plugins=[*STUBS, RANDOM])


PIPELINE = """\
pipeline: demo
seed: 7
data:
  - use: prompts
    prompts: 20
policy:
  use: model
  model: tiny
warm_start: {use: imitate}
ask:
  questions: 10
  annotators:
    - use: pairs
      raters: 5
reward:
  use: bt
  epochs: 2
optimize: {use: climb}
evaluate:
  - {use: wins}
gate: {use: threshold}
"""
