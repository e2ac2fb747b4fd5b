"""Finding plugins: installed entry points, read without importing anything until a plugin is used.

A broken third-party distribution shows up as broken when its plugin is loaded; it never takes the others down.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_core.errors import PluginError
from rlhf_core.plugins import CONTRACTS
from rlhf_core.plugins.base import Plugin, Use
from rlhf_core.plugins.code import code_digest, code_of
from rlhf_core.plugins.slots import slots
from rlhf_core.run import Run

ALLOW_VARIABLE = "RLHF_PLUGINS_ALLOW"
"""Environment variable: comma-separated distribution names (with * and ?) whose plugins may be loaded; unset: all."""


class PluginInfo(NamedTuple):
    """An installed plugin, as its distribution declares it; nothing of it is imported yet."""

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    """`module:Class`."""

    @property
    def full_name(self) -> str:
        """`distribution/name`, which is never ambiguous between distributions."""
        return f"{self.distribution}/{self.name}"

    @property
    def module(self) -> str:
        """The module of its class."""
        return self.target.partition(":")[0]


class Chosen(NamedTuple):
    """What a `Use` stands for: the plugin's class, its checked configuration, and the plugins in that."""

    info: PluginInfo
    plugin: type[Plugin]
    config: Any
    written: dict[str, Any]
    """The configuration as JSON, defaults included."""
    nested: tuple[tuple[str, Use], ...]
    """Kind and reference of each plugin that the configuration names."""


def installed_plugins() -> list[PluginInfo]:
    """Every entry point of every plugin kind, sorted; imports nothing."""
    found = set()
    for kind in CONTRACTS:
        for entry in importlib.metadata.entry_points(group=f"rlhf.{kind}"):
            if entry.dist is not None:
                found.add(PluginInfo(kind, entry.name, entry.dist.name, entry.dist.version, entry.value))
    return sorted(found)


class Registry:
    """The plugins of this environment. `plugins` and `allow` are given by tests; users set RLHF_PLUGINS_ALLOW."""

    def __init__(self, plugins: Sequence[PluginInfo] | None = None, allow: Iterable[str] | None = None) -> None:
        if plugins is not None:
            self.plugins = list(plugins)
        if allow is None:
            allow = [name.strip() for name in os.environ.get(ALLOW_VARIABLE, "").split(",") if name.strip()]
        self.allow = tuple(allow)
        self._chosen: dict[tuple[str, str], Chosen] = {}

    @cached_property
    def plugins(self) -> list[PluginInfo]:
        """All installed plugins, the forbidden ones included."""
        return installed_plugins()

    def allowed(self, info: PluginInfo) -> bool:
        """Whether the allowlist lets this plugin's distribution load."""
        return not self.allow or any(fnmatch(info.distribution, pattern) for pattern in self.allow)

    def of_kind(self, kind: str) -> list[PluginInfo]:
        """The plugins of one kind that may be loaded."""
        return [info for info in self.plugins if info.kind == kind and self.allowed(info)]

    def clashes(self) -> list[list[PluginInfo]]:
        """Groups of plugins of one kind and name from several distributions."""
        groups: dict[tuple[str, str], list[PluginInfo]] = {}
        for info in self.plugins:
            if self.allowed(info):
                groups.setdefault((info.kind, info.name), []).append(info)
        return [group for group in groups.values() if len(group) > 1]

    def find(self, kind: str, name: str) -> PluginInfo:
        """The plugin called `name` or `distribution/name`.

        Raises PluginError where there is none, where two distributions offer the name, or where it may not load.
        """
        matches = [info for info in self.plugins if info.kind == kind and name in (info.name, info.full_name)]
        allowed = [info for info in matches if self.allowed(info)]
        singular = CONTRACTS[kind].__name__
        if len(allowed) > 1:
            offers = " and ".join(f"{info.distribution} {info.version}" for info in allowed)
            choices = " or ".join(f"`{info.full_name}`" for info in allowed)
            raise PluginError(f"`{name}` is offered by {offers}.", remedy=f"Write {choices}.")
        if allowed:
            return allowed[0]
        if matches:
            raise PluginError(
                f"`{name}` belongs to {matches[0].distribution}, which {ALLOW_VARIABLE} does not allow.",
                remedy=f"Add {matches[0].distribution} to {ALLOW_VARIABLE} if you trust it.",
            )
        names = sorted({info.name for info in self.of_kind(kind)})
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean `{close[0]}`? " if close else ""
        raise PluginError(
            f"there is no {singular} plugin called `{name}`.",
            remedy=f"{hint}Installed {kind.replace('_', ' ')}: {', '.join(names) or 'none'}.",
        )

    def load(self, kind: str, name: str) -> type[Plugin]:
        """Import the plugin's class. Raises PluginError, naming the distribution, where that fails."""
        info = self.find(kind, name)
        culprit = f"{info.distribution} {info.version}"
        module, _, attribute = info.target.partition(":")
        try:
            loaded: Any = importlib.import_module(module)
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin `{name}` of {culprit} is broken: importing {info.target} raised "
                f"{type(error).__name__}: {error}",
                remedy=f"Update or remove {info.distribution}; everything else works without it.",
            ) from error
        contract = CONTRACTS[kind]
        if not (isinstance(loaded, type) and issubclass(loaded, contract)):
            raise PluginError(
                f"plugin `{name}` of {culprit} is broken: {info.target} is not a subclass of {contract.__name__}."
            )
        return loaded

    def create(self, kind: str, use: Use, run: Run | None = None) -> Any:
        """An instance with the checked configuration of `use`. Raises PluginError, pydantic.ValidationError."""
        plugin = self.load(kind, use.use)
        return plugin(plugin.Config(**use.options), run=run)

    def fingerprint(self, kind: str, use: Use) -> dict[str, Any]:
        """What a plugin's result depends on: code, configuration, files that it reads, and nested plugins' likewise.

        Defaults are written out, so that a new default is a new fingerprint. The code is everything that the plugin
        imports, as `code` says. Not to be changed by who asks: it is kept, all but the files that are read.
        """
        chosen = self._choose(kind, use)
        return {
            "plugin": chosen.info.full_name,
            "version": chosen.info.version,
            "code": code_digest(chosen.info.module),
            "config": chosen.written,
            "files": [files_digest(path) for path in chosen.plugin.reads(chosen.config)],
            "nested": [self.fingerprint(*nested) for nested in chosen.nested],
        }

    def code(self, kind: str, use: Use) -> Mapping[str, str]:
        """The code that a plugin and those in its configuration import: file -> digest, distribution -> version."""
        chosen = self._choose(kind, use)
        found = dict(code_of(chosen.info.module))
        for nested in chosen.nested:
            found.update(self.code(*nested))
        return found

    def _choose(self, kind: str, use: Use) -> Chosen:
        """Looked up and checked once for each way of using it, since a campaign asks for each round's keys anew."""
        key = kind, json.dumps(use.model_dump(mode="json"), sort_keys=True)
        if key not in self._chosen:
            info = self.find(kind, use.use)
            plugin = self.load(kind, use.use)
            config = plugin.Config(**use.options)
            nested = tuple((slot.kind, slot.use) for slot in slots(config))
            self._chosen[key] = Chosen(info, plugin, config, config.model_dump(mode="json"), nested)
        return self._chosen[key]


def files_digest(path: Path) -> str:
    """SHA-256 over the names and contents of a file, or of all files below a folder; empty where there is nothing."""
    path = path.expanduser()
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.exists()]
    return _digest_of(path, tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats))


@lru_cache
def _digest_of(top: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as content:
            name = file.relative_to(top).as_posix()
            whole.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest() if files else ""
