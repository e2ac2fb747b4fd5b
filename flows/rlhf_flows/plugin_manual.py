"""What can be said about a plugin from its class and its config: the manual that `rlhf plugins show` prints."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from rlhf_core.errors import PluginError
from rlhf_core.plugins import PLACES, Optimizer, Plugin, Policy, Step
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.run import Run


def describe(plugin: type[Plugin], info: PluginInfo) -> dict[str, Any]:
    """The manual of one plugin: what it is, what it declares, its options."""
    return {
        "name": info.name,
        "kind": info.kind,
        "distribution": info.distribution,
        "version": info.version,
        "target": info.target,
        "doc": inspect.getdoc(plugin) or "",
        "declares": _declarations(plugin),
        "options": list(_options(plugin.Config)),
    }


def prepared_policy(registry: Registry, trainer: type[Plugin]) -> Callable[[], Policy] | None:
    """What makes fresh policies that `trainer` can train, from the installed ones as they come; None where none fits.

    Every one has the weights of the first.
    """
    from rlhf_core.testing import materials

    trains = getattr(trainer, "trains", Policy)
    for info in registry.of_kind("policies"):
        try:
            plugin: Any = registry.load("policies", info.full_name)
            plugin.Config()
        except (PluginError, ValueError):
            continue
        if issubclass(plugin, trains):

            def make(plugin: Any = plugin) -> Policy:
                policy: Policy = plugin(run=Run(7))
                policy.prepare(materials.prompts("text"), materials.demonstrations("text"))
                return policy

            return make
    return None


def _declarations(plugin: type[Plugin]) -> dict[str, list[str]]:
    found = {"works with": sorted(plugin.modality)}
    if issubclass(plugin, Step):
        found |= _declarations_of_a_step(plugin)
        return found
    for attribute, words in (("takes", "takes"), ("yields", "yields"), ("learns_from", "learns from")):
        kinds: Iterable[type] | Callable[..., Any] = getattr(plugin, attribute, ())
        if not callable(kinds) and kinds:
            found[words] = sorted(f"{kind.__name__.lower()}s" for kind in kinds)
    if issubclass(plugin, Optimizer) and not plugin.needs_reward:
        found["needs a reward model"] = ["no"]
    if "trains" in vars(plugin):
        found["trains"] = [vars(plugin)["trains"].__name__]
    for method, words in (("yields", "yields"), ("produces", "measures"), ("needs", "reads")):
        declared = getattr(plugin, method, None)
        if callable(declared):
            try:
                names = [getattr(each, "__name__", each) for each in declared(plugin.Config())]
            except ValueError:
                continue  # depends on options that have no default
            if names:
                found[words] = sorted(map(str, names))
    return found


def _declarations_of_a_step(step: type[Step]) -> dict[str, list[str]]:
    """What it takes, gives and hears, and where it may stand."""
    said = {"takes": sorted(step.takes), "gives": [step.gives] * bool(step.gives), "hears": sorted(step.hears)}
    places = [
        name.replace(" ", ": ")
        for name, place in PLACES.items()
        if frozenset(step.takes) <= place.kinds and step.gives in ("", place.stands)
    ]
    return {words: names for words, names in {**said, "stands": places}.items() if names}


def _options(model: type[BaseModel], prefix: str = "") -> Iterable[dict[str, Any]]:
    """Every option with type, default and docstring; options of options after them, with dots."""
    for name, field in model.model_fields.items():
        default = None if field.default is PydanticUndefined else to_jsonable_python(field.default)
        yield {
            "name": prefix + name,
            "type": _type(field.annotation),
            "required": field.is_required(),
            "default": json.dumps(default, ensure_ascii=False),
            "doc": " ".join((field.description or "").split()),
        }
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.model_config.get("extra") == "forbid":
            yield from _options(inner, f"{prefix}{name}.")


def _type(annotation: Any) -> str:
    """`int | None` as people write it, without the modules' names."""
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m.group(1).replace("'", "").replace(", ", " | "), text)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "None")
