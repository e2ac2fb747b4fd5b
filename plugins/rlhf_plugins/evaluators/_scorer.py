"""A plugin that says how bad a text is, as a probability: word list, classifier, cost model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import PluginConfig, RewardModel, Use
from rlhf_core.records import Prompt, Sample
from rlhf_core.run import Run


class ScorerConfig(PluginConfig):
    """Which plugin, and which of its scores."""

    by: Annotated[Use, Use.of("reward_models")]
    """A reward model: `rule` with a word list, `sequence_classifier`, a fitted `cost`, or a `service` such as
    Perspective. It is never trained here."""
    folder: Path | None = None
    """Where a fitted one was saved."""
    criterion: str | None = "toxicity"
    """Which of its criteria is the badness, from 0 to 1. Left empty: 1 minus its score."""
    sigmoid: bool = False
    """The criterion is log-odds (the `cost` of a cost model), of which the probability is taken."""


def badness(config: ScorerConfig, run: Run, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> list[float]:
    """[0, 1] for each sample. Raises RlhfError where the plugin has no such criterion or leaves that range."""
    from rlhf_core.plugins.registry import Registry

    scorer: RewardModel = Registry().create("reward_models", config.by, run)
    if config.folder is not None:
        scorer.load(config.folder)
    scores = scorer.score(prompts, [sample.blind() for sample in samples])
    if config.criterion is None:
        values = [1 - value for value in scores.mean]
    elif config.criterion in scores.criteria:
        values = scores.criteria[config.criterion]
    else:
        raise RlhfError(
            f"the scorer `{config.by.use}` has no criterion `{config.criterion}`",
            remedy=f"Set `criterion` to one of {', '.join(scores.criteria) or 'none'}, or to null: 1 minus its score.",
        )
    if config.sigmoid:
        values = [0.5 * (1 + math.tanh(value / 2)) for value in values]
    for value in values:
        if not 0 <= value <= 1:
            raise RlhfError(
                f"the scorer `{config.by.use}` gave {value:g}, where 0 (harmless) to 1 is expected",
                remedy="Set `sigmoid: true` for scores that are log-odds, or choose another criterion.",
            )
    return list(values)
