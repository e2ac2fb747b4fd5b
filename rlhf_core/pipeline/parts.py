"""The plugins that a pipeline names: found, imported and configured, for everything that checks a pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from rlhf_core.errors import PluginError
from rlhf_core.pipeline.config_errors import explain
from rlhf_core.plugins.base import Plugin, Use
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.plugins.slots import Loc, slots


class ChosenPlugin(NamedTuple):
    """A plugin in its place, ready to be asked what it yields and needs."""

    loc: Loc
    kind: str
    use: Use
    info: PluginInfo
    plugin: type[Plugin]
    config: Any
    depth: int
    """0 for the pipeline's own parts, more for plugins that plugins use."""

    @property
    def place(self) -> str:
        """The place as people write it: `ask.annotators.0`."""
        return dotted(self.loc)


class Misfit(NamedTuple):
    """Something wrong at a place of the pipeline."""

    loc: Loc
    what: str
    remedy: str = ""


def dotted(loc: Loc) -> str:
    """`("ask", "annotators", 0)` as `ask.annotators.0`."""
    return ".".join(map(str, loc))


def choose(model: BaseModel, registry: Registry) -> tuple[list[ChosenPlugin], list[Misfit]]:
    """All plugins that `model` and the plugins it names refer to, and what is wrong with some of them."""
    chosen: list[ChosenPlugin] = []
    misfits: list[Misfit] = []
    waiting = [(slot, 0) for slot in slots(model)]
    while waiting:
        (loc, kind, use), depth = waiting.pop(0)
        try:
            info = registry.find(kind, use.use)
            plugin = registry.load(kind, use.use)
        except PluginError as error:
            misfits.append(Misfit((*loc, "use"), error.what, error.remedy))
            continue
        try:
            config = plugin.Config.model_validate(use.options)
        except ValidationError as error:
            misfits += [Misfit((*loc, *at), what) for at, what in explain(error, plugin.Config, use.options)]
            continue
        chosen.append(ChosenPlugin(loc, kind, use, info, plugin, config, depth))
        waiting[:0] = [(slot, depth + 1) for slot in slots(config, loc)]
    return chosen, misfits
