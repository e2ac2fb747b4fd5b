"""Whether a plugin keeps its contract: the points every kind must keep, and those of each kind."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from rlhf_core.pipeline.config_errors import explain
from rlhf_core.pipeline.parts import dotted
from rlhf_core.plugins import CONTRACTS, Plugin, Policy, Step
from rlhf_core.testing.points import POINTS
from rlhf_core.testing.subject import Skipped, Subject

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "mlflow",
    "prefect",
    "pandas",
    "sklearn",
    "scipy",
    "gymnasium",
    "stable_baselines3",
)
"""Packages that may be imported where they are used, but not by importing a plugin."""


class Finding(NamedTuple):
    """A point of the contract that the plugin breaks, or that could not be tried."""

    point: str
    """The point, in words."""
    what: str
    skipped: bool = False
    """True where the point was not tried, so that nothing is known."""

    def __str__(self) -> str:
        return f"{self.point}{' (not tried)' if self.skipped else ''}: {self.what}"


def check_plugin(plugin: type[Plugin], *, policy: Callable[[], Policy] | None = None, **options: Any) -> list[Finding]:
    """Everything about `plugin`, configured with `options`, that breaks the contract of its kind; empty where nothing.

    Uses a dozen small records of the kit's own. What trains language models is exercised only where `policy` makes a
    prepared policy of the class it trains.
    """
    if not (inspect.isclass(plugin) and issubclass(plugin, tuple(CONTRACTS.values()))):
        return [Finding("is a plugin", f"{plugin!r} is not a subclass of {', '.join(_contracts())}")]
    findings = [Finding(_words(point), what) for point in GENERAL for what in point(plugin)]
    try:
        plugin.Config.model_validate(options)
    except ValidationError as error:
        for loc, what in explain(error, plugin.Config, options):
            findings.append(Finding("has a config", f"{dotted(loc)} {what}"))
        return findings
    subject = Subject(plugin, options, policy)
    for point in POINTS[plugin.kind]:
        try:
            findings += [Finding(_words(point), what) for what in point(subject)]
        except Skipped as skipped:
            findings.append(Finding(_words(point), str(skipped), skipped=True))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            findings.append(Finding(_words(point), what))
    return findings


def is_documented(plugin: type[Plugin]) -> Iterator[str]:
    """The class and each config field have a docstring: they are the manual."""
    if not plugin.__doc__:
        yield f"{plugin.__name__} has no docstring"
    for name, field in plugin.Config.model_fields.items():
        if not field.description:
            yield f"the config field {name} has no docstring under it"


def refuses_unknown_options(plugin: type[Plugin]) -> Iterator[str]:
    """A misspelt option is an error, never ignored."""
    if not issubclass(plugin.Config, BaseModel) or plugin.Config.model_config.get("extra") != "forbid":
        yield "Config is not a PluginConfig, or allows unknown fields"
    elif "use" in plugin.Config.model_fields:
        yield "a config field cannot be called `use`, which names the plugin"
    elif issubclass(plugin, Step):
        for name in {"after", "before"} & set(plugin.Config.model_fields):
            yield f"a config field of a step cannot be called `{name}`, which is its place in the pipeline"


def declares_its_modality(plugin: type[Plugin]) -> Iterator[str]:
    """`modality` is a set of known worlds."""
    if not plugin.modality or not set(plugin.modality) <= {"text", "control"}:
        yield f"modality is {plugin.modality!r}, not TEXT, CONTROL or ANY"


def default_config_is_json(plugin: type[Plugin]) -> Iterator[str]:
    """Configs go through JSON into cache keys and MLflow and come back equal."""
    try:
        config = plugin.Config()
    except ValidationError:
        return  # has fields without default; nothing to try here
    if plugin.Config.model_validate(json.loads(config.model_dump_json())) != config:
        yield "the default config does not survive JSON"


def imports_lightly(plugin: type[Plugin]) -> Iterator[str]:
    """Importing the module loads no heavy package, since checking a pipeline imports every plugin it names."""
    module = plugin.__module__
    if module == "__main__" or importlib.util.find_spec(module) is None:
        return
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import {module}; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        yield f"importing {module} imports {', '.join(done.stdout.split())}; import them inside the methods"


GENERAL = (is_documented, refuses_unknown_options, declares_its_modality, default_config_is_json, imports_lightly)


def _words(point: Callable[..., Any]) -> str:
    return point.__name__.replace("_", " ")


def _contracts() -> list[str]:
    return [contract.__name__ for contract in CONTRACTS.values()]
