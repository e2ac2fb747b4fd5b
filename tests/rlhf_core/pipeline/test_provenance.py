from __future__ import annotations

from typing import Annotated

import pytest

from rlhf_core import Optimizer, PluginConfig, RewardModel, Use
from rlhf_core.errors import PipelineError
from rlhf_core.pipeline.provenance import plugins_of
from rlhf_core.pipeline.spec import Pipeline
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.records import Comparison
from stub_plugins import RANDOM, STUBS


class Several(RewardModel):
    """An ensemble."""

    learns_from = {Comparison}

    class Config(PluginConfig):
        members: Annotated[tuple[Use, ...], Use.of("reward_models")] = ()
        """Whose scores are averaged."""


class Guard(PluginConfig):
    """A guard in a section of its own."""

    by: Annotated[Use | None, Use.of("reward_models")] = None
    """Who judges."""


class Watched(Optimizer):
    """An optimizer with a guard."""

    class Config(PluginConfig):
        watch: Guard = Guard()
        """Its guard."""


MINE = [
    PluginInfo("reward_models", "several", "mine", "2.1", f"{__name__}:Several"),
    PluginInfo("optimizers", "watched", "mine", "2.1", f"{__name__}:Watched"),
    PluginInfo("reward_models", "bt", "theirs", "0.9", "stub_plugins:Bt"),
]
SPECIFICATION = {
    "pipeline": "p",
    "data": [{"use": "prompts", "clicks": True}],
    "policy": {"use": "model", "model": "tiny"},
    "ask": {
        "annotators": [{"use": "pairs", "judge": {"use": "words"}}, {"use": "clicks"}],
        "convert": {"use": "clicked"},
    },
    "reward": {"use": "several", "members": [{"use": "stubs/bt"}, {"use": "several", "members": [{"use": "ctr"}]}]},
    "optimize": {"use": "watched", "watch": {"by": {"use": "several", "members": [{"use": "theirs/bt"}]}}},
    "evaluate": [{"use": "wins"}],
    "gate": {"use": "threshold"},
}


@pytest.fixture
def registry() -> Registry:
    return Registry(plugins=[*STUBS, RANDOM, *MINE])


def test_every_plugin_that_took_part_is_named(registry: Registry) -> None:
    assert plugins_of(Pipeline.model_validate(SPECIFICATION), registry) == {
        "annotators/clicks": "stubs 1.0",
        "annotators/pairs": "stubs 1.0",
        "converters/clicked": "stubs 1.0",
        "data_sources/prompts": "stubs 1.0",
        "evaluators/wins": "stubs 1.0",
        "gates/threshold": "stubs 1.0",
        "optimizers/watched": "mine 2.1",
        "policies/model": "stubs 1.0",
        "reward_models/bt": "stubs 1.0 and theirs 0.9",  # in the ensemble, and below the watch
        "reward_models/ctr": "stubs 1.0",  # in an ensemble in the ensemble
        "reward_models/several": "mine 2.1",
        "reward_models/words": "stubs 1.0",  # the panel's judge
        "selectors/random": "stubs 1.0",  # the default
    }


def test_what_cannot_be_told_is_an_error(registry: Registry) -> None:
    pipeline = Pipeline.model_validate({**SPECIFICATION, "gate": {"use": "nowhere"}})
    with pytest.raises(PipelineError, match="no Gate plugin called `nowhere`") as caught:
        plugins_of(pipeline, registry)
    assert caught.value.where == "p: gate.use"


def test_the_built_in_plugins_inside_plugins_are_named() -> None:
    pipeline = Pipeline.model_validate(
        {
            "pipeline": "p",
            "data": [{"use": "newsroom"}],
            "policy": {"use": "causal_lm", "model": "starter"},
            "reward": {"use": "ensemble", "members": [{"use": "pairwise"}, {"use": "feed_forward"}]},
            "optimize": {"use": "ppo", "watch": {"by": {"use": "principles"}}},
            "evaluate": [{"use": "win_rate"}],
            "gate": {"use": "better"},
        }
    )
    found = plugins_of(pipeline, Registry())
    nested = {"reward_models/pairwise", "reward_models/feed_forward", "reward_models/principles"}
    assert nested <= set(found)
    assert all(source.startswith("rlhf-pipeline ") for source in found.values())
