"""The plugins that a pipeline names: found, imported and configured, for everything that checks a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from rlhf_core.config_errors import Loc, explain
from rlhf_core.errors import PluginError
from rlhf_core.plugins.base import Plugin, Use
from rlhf_core.plugins.registry import PluginInfo, Registry


class Slot(NamedTuple):
    """A place in a pipeline, or in a plugin's config, that names a plugin."""

    loc: Loc
    kind: str
    use: Use


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


def slots(model: BaseModel, at: Loc = ()) -> Iterator[Slot]:
    """Every plugin that `model` refers to through a field marked with `Use.of(kind)`, models in models included."""
    for name, field in type(model).model_fields.items():
        value, loc = getattr(model, name), (*at, name)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "plugin_kind" in extra:
            kind = str(extra["plugin_kind"])
            yield from (Slot(place, kind, use) for place, use in _items(value, loc) if isinstance(use, Use))
        else:
            for place, inner in _items(value, loc):
                if isinstance(inner, BaseModel) and not isinstance(inner, Use):
                    yield from slots(inner, place)


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


def _items(value: Any, loc: Loc) -> list[tuple[Loc, Any]]:
    if isinstance(value, list | tuple):
        return [((*loc, i), item) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return [((*loc, str(key)), item) for key, item in value.items()]
    return [(loc, value)]
