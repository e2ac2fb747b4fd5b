"""Reward model `function`: any Python function as the reward."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rlhf_core import PluginConfig, Prompt, RewardModel, Sample, Scores
from rlhf_core.errors import PluginError


class Function(RewardModel):
    """Scores with a function of yours: `score(prompts, samples)` gives one number a sample; nothing is learnt."""

    class Config(PluginConfig):
        """Which function."""

        of: str = Field(pattern=r"^[\w.]+:[\w.]+$")
        """`package.module:name` of the function, which must be importable. Its module is executed: name only code you
        trust."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The function's own file, so that a change in it is a new reward."""
        try:
            spec = importlib.util.find_spec(config.of.partition(":")[0])
        except ImportError:
            return ()
        return (Path(spec.origin),) if spec is not None and spec.has_location and spec.origin else ()

    def set_up(self) -> None:
        """Import the function. Raises PluginError where there is none."""
        module, _, name = self.config.of.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"cannot import the function `{self.config.of}`: {error}",
                where="function",
                remedy="`of` is package.module:name; the package must be installed, or its folder on PYTHONPATH.",
            ) from error
        if not callable(found):
            raise PluginError(
                f"`{self.config.of}` is no function but {type(found).__name__}",
                where="function",
                remedy="Name something that can be called with prompts and samples.",
            )
        self.function = found

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """What the function says, as floats."""
        return Scores(mean=[float(value) for value in self.function(prompts, samples)])
