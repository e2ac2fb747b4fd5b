"""The parts of a pipeline laid out for the check, and the words in which problems are said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rlhf_core.errors import PluginError
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.parts import ChosenPlugin
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.plugins.slots import Loc
from rlhf_core.records import Feedback


class Broken(Exception):
    """A plugin's own declaration raised."""

    def __init__(self, part: ChosenPlugin, method: str, error: Exception) -> None:
        self.part = part
        self.what = (
            f"{part.place}: `{part.info.name}` of {part.info.distribution} {part.info.version} is broken: "
            f"{method}() raised {type(error).__name__}: {error}"
        )
        super().__init__(self.what)


class Board:
    """A pipeline, its plugins, and what else is installed."""

    def __init__(
        self, pipeline: Pipeline, chosen: list[ChosenPlugin], registry: Registry, where: Callable[[Loc], str]
    ) -> None:
        self.pipeline = pipeline
        self.registry = registry
        self.where = where
        self.all = chosen
        """Every plugin, those in plugins included."""
        self.parts = [part for part in chosen if part.depth == 0]

    def at(self, *loc: int | str) -> ChosenPlugin:
        """The plugin that stands exactly there."""
        return next(part for part in self.parts if part.loc == loc)

    def under(self, *loc: int | str) -> list[ChosenPlugin]:
        """The pipeline's own plugins at or below a place; none where it is left out."""
        return [part for part in self.parts if part.loc[: len(loc)] == loc]

    def named(self, part: ChosenPlugin) -> str:
        """`name` (where)."""
        return f"`{part.use.use}` ({self.where(part.loc)})"

    def installed(self, kind: str, fits: Callable[[Any], bool]) -> list[str]:
        """Names of the installed plugins that fit; broken ones and those that need more configuration are left out."""
        ambiguous = {info for group in self.registry.clashes() for info in group}

        def name(info: PluginInfo) -> str:
            return info.full_name if info in ambiguous else info.name

        found = []
        for info in self.registry.of_kind(kind):
            try:
                plugin: type[Plugin] = self.registry.load(kind, info.full_name)
                if fits(plugin):
                    found.append(name(info))
            except (PluginError, ValueError, NotImplementedError):
                continue
        return sorted(found)


def declared(part: ChosenPlugin, method: str, *arguments: Any, **options: Any) -> Any:
    """What the plugin declares. Raises Broken where that fails."""
    try:
        return getattr(part.plugin, method)(*arguments, **options)
    except Exception as error:
        raise Broken(part, method, error) from error


def names_of(kinds: Iterable[type[Feedback]]) -> list[str]:
    """`[Comparison, Rating]` as `["comparisons", "ratings"]`."""
    return sorted(f"{kind.__name__.lower()}s" for kind in kinds)


def words(items: Iterable[str], joint: str = "and") -> str:
    """`a, b and c`."""
    found = sorted(items)
    return f" {joint} ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found) or "nothing"


def installed_remedy(what: str, names: list[str]) -> str:
    """What could be used instead."""
    return f"Installed {what}: {', '.join(names)}." if names else f"No {what} are installed."
