"""What a stage's result depends on, as its cache key; and what changed since it was last computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_core.metrics import Metric
from rlhf_core.plugins.code import changed_code, code_of
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_flows.graph.node import Node

FORMAT = 2
"""Raised when what a stage writes changes its meaning, so that older results are not taken for new ones."""

Ingredients = dict[str, Any]
"""Everything that a stage's result depends on, as plain JSON."""


def ingredients(
    node: Node, inputs: Mapping[str, str], metrics: Mapping[str, Mapping[str, Metric]], registry: Registry
) -> Ingredients:
    """What the result of `node` depends on: the code of its body and plugins, their configuration, settings and seed,
    the digests of its `inputs` by name, and their `metrics` where the node reads them.
    """
    code = dict(code_of(node.body.partition(":")[0]))
    for role in node.plugins:
        code |= registry.code(role.kind, role.use)
    return {
        "format": FORMAT,
        "stage": node.body,
        "round": node.round,
        "seed": node.seed,
        "plugins": [[role.role, role.kind, registry.fingerprint(role.kind, role.use)] for role in node.plugins],
        "settings": node.settings,
        "inputs": dict(inputs),
        "metrics": {name: _plain(found) for name, found in metrics.items()} if node.reads_metrics else {},
        "code": code,
    }


def key_of(node: Node, found: Ingredients) -> str:
    """The cache key of a node with these ingredients: its name and a digest."""
    return f"{node.name}-{content_id(found)}"


def changes(before: Ingredients, now: Ingredients) -> list[str]:
    """Why a result that was computed from `before` has to be computed again from `now`, in words, the surest first;
    empty where nothing differs.
    """
    found = list(dict.fromkeys(_changes(before, now)))
    return found or ([] if before == now else ["what it depends on is written down in another way now"])


def _changes(before: Ingredients, now: Ingredients) -> Iterator[str]:
    old_code, new_code = before.get("code", {}), now["code"]
    yield from (_code_change(name, old_code.get(name), new_code.get(name)) for name in changed_code(old_code, new_code))
    olds = {(role, kind, i): found for i, (role, kind, found) in enumerate(before.get("plugins", []))}
    news = {(role, kind, i): found for i, (role, kind, found) in enumerate(now["plugins"])}
    for place, new in news.items():
        old = olds.get(place)
        if old is None or old["plugin"] != new["plugin"]:
            yield f"the {place[0]} is {new['plugin']} now" + (f", and was {old['plugin']}" if old else "")
        else:
            yield from (f"{place[0]}.{difference}" for difference in _differences(old["config"], new["config"]))
            yield from _inside(old, new)
    yield from (f"the {place[0]} {old['plugin']} is gone" for place, old in olds.items() if place not in news)
    old_settings, settings = before.get("settings", {}), now["settings"]
    yield from _differences(old_settings, settings)
    if before.get("seed") != now["seed"] and old_settings.get("seed") == settings.get("seed"):
        yield "the seed changed"
    yield from dict.fromkeys(_input_changes(before.get("inputs", {}), now["inputs"]))
    if before.get("metrics") != now["metrics"]:
        yield "what was measured changed"
    if before.get("round") != now["round"]:
        yield f"the round is {now['round']} now, and was {before.get('round')}"
    if (before.get("format"), before.get("stage")) != (now["format"], now["stage"]):
        yield "the stage is computed in another way now"


def _code_change(name: str, old: str | None, new: str | None) -> str:
    """What happened to a file, or to a distribution, which stands with its version."""
    if "/" not in name and not name.endswith(".py"):
        return f"{name}: {old or 'not there'} -> {new or 'not there'}"
    return f"{name} " + ("is new" if old is None else "is gone" if new is None else "changed")


def _inside(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What differs between a plugin and itself beside its configuration; also in the plugins that it names."""
    if old["plugin"] != new["plugin"]:
        return  # the configuration that names it differs
    if old["version"] != new["version"]:
        yield f"{new['plugin']}: {old['version']} -> {new['version']}"
    if old["files"] != new["files"]:
        yield f"files that {new['plugin']} reads changed"
    for one, other in zip(old["nested"], new["nested"], strict=False):
        yield from _inside(one, other)


def _input_changes(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in new:
            yield f"it does without {_input(name)} now"
        elif name not in old:
            yield f"it takes {_input(name)} now"
        elif old[name] != new[name]:
            yield f"{_input(name)} changed"


def _input(name: str) -> str:
    """An input in words, from the name under which the stage's body asks for it."""
    if name in _INPUTS:
        return _INPUTS[name]
    what, _, of = name.partition("_")
    if what in ("challenger", "champion"):
        return f"what was measured of the {what}"
    if name.startswith("samples_round_"):
        return f"the samples of round {name.rpartition('_')[2]}"
    number = of.partition("_")[0]
    if what in ("questions", "answers", "past") and number.isdigit():
        return f"what was measured in round {number}" if what == "past" else f"the {what} of round {number}"
    if what == "samples":
        return f"the {of.replace('_', ' ')}'s samples"
    return f"the {name.replace('_', ' ')}"


_INPUTS = {
    "previous": "what the round before left",
    "base": "the warm start",
    "reward": "the reward model",
    "snapshot": "the feedback",
    "tuning": "what the search for settings chose",
    "gold": "the gold judge",
}


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """`a.b: 1 -> 2` for each setting that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{at}.{name}" if at else str(name))
    elif old != new:
        nested = isinstance(old, dict | list) or isinstance(new, dict | list)
        yield f"{at} changed" if nested else f"{at}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric.model_dump(mode="json") for name, metric in metrics.items()}
