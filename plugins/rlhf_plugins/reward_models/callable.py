"""Reward model `callable`: any Python function as a reward."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import PluginConfig, RewardModel, Scores
from rlhf_core.records import Prompt, Sample


class CallableReward(RewardModel):
    """Scores with a function that you name: `function(prompt, sample) -> float`, given the records themselves.

    For a rule in ten lines of your own; what learns, keeps files, or is shared with others is better a plugin
    (`rlhf plugins new reward_models ...`).
    """

    class Config(PluginConfig):
        """Which function."""

        function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
        """`package.module:function`, importable from where `rlhf` runs. Importing it runs that module."""
        options: dict[str, JsonValue] = {}
        """Keyword arguments for every call."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The function's own file, so that changed code is a new result."""
        try:
            spec = importlib.util.find_spec(config.function.partition(":")[0])
        except (ImportError, ValueError):
            return ()
        return (Path(spec.origin),) if spec is not None and spec.origin not in (None, "built-in", "frozen") else ()

    def set_up(self) -> None:
        """Nothing is imported before it is used."""
        self._function: Callable[..., Any] | None = None

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """One call a sample. Raises RlhfError where the function fails or returns no finite number."""
        if not samples:
            return Scores([])
        function = self._function = self._function or self._find()
        mean = []
        for prompt, sample in zip(prompts, samples, strict=True):
            try:
                value = float(function(prompt, sample, **self.config.options))
            except Exception as error:
                raise RlhfError(
                    f"the function raised {type(error).__name__}: {error}", where=f"reward {self.config.function}"
                ) from error
            if not math.isfinite(value):
                raise RlhfError(f"the function returned {value}", where=f"reward {self.config.function}")
            mean.append(value)
        return Scores(mean)

    def _find(self) -> Callable[..., Any]:
        module, _, path = self.config.function.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise RlhfError(
                f"cannot import it: {type(error).__name__}: {error}",
                where=f"reward {self.config.function}",
                remedy="The module must be installed, or lie in the folder that PYTHONPATH names.",
            ) from error
        if not callable(found):
            raise RlhfError(f"it is a {type(found).__name__}, no function", where=f"reward {self.config.function}")
        return found
