"""The search space of `tune:`: which settings of the reward model it means, and whether they exist."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import JsonValue

from rlhf_core.pipeline.parts import Misfit, choose, dotted
from rlhf_core.pipeline.placement import Part
from rlhf_core.pipeline.spec import Pipeline
from rlhf_core.plugins.base import Use
from rlhf_core.plugins.registry import Registry


class _Reward(Part):
    """A reward model alone, to be checked like one in a pipeline."""

    reward: Annotated[Use, Use.of("reward_models")]


def with_values(use: Use, values: Mapping[str, JsonValue]) -> Use:
    """`use` with some fields set; `members.0.lr` is the field `lr` of the first of the list `members`, `lora.r` that
    of a section, which need not be written.

    Raises KeyError, with the way up to there, where a list is too short or something that holds no fields is in the
    way.
    """
    options: dict[str, Any] = copy.deepcopy(use.model_dump(mode="json"))
    for name, value in values.items():
        *path, last = name.split(".")
        place: Any = options
        for i, part in enumerate(path):
            try:
                place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
            except (AttributeError, IndexError, ValueError) as error:
                raise KeyError(".".join(path[: i + 1])) from error
        if not isinstance(place, dict):
            raise KeyError(".".join(path))
        place[last] = value
    return Use.model_validate(options)


def misfits_of_tuning(pipeline: Pipeline, registry: Registry) -> list[Misfit]:
    """What is wrong with the search space: fields that the reward model does not have, values that it refuses."""
    if pipeline.tune is None or pipeline.reward is None:  # the check says what `tune` needs a reward for
        return []
    found = []
    if importlib.util.find_spec("optuna") is None:
        remedy = "Install the extra `tune`: pip install 'rlhf-pipeline[tune]'."
        found.append(Misfit(("tune",), "needs Optuna, which is not installed", remedy))
    for name, span in pipeline.tune.space.items():
        loc = ("tune", "space", name)
        for value in span.examples():
            try:
                use = with_values(pipeline.reward, {name: value})
            except KeyError as error:
                found.append(Misfit(loc, f"`reward` has no fields at `{error.args[0]}`"))
                break
            _, wrong = choose(_Reward(reward=use), registry)
            if wrong:
                place = dotted(wrong[0].loc[1:])
                found.append(
                    Misfit(loc, wrong[0].what if place == name else f"`{place}`: {wrong[0].what}", wrong[0].remedy)
                )
                break
    return found
