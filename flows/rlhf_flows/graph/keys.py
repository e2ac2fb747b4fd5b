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
    """Why a result that was computed from `before` has to be computed again from `now`, in words, the surest first."""
    return list(dict.fromkeys(_changes(before, now)))


def _changes(before: Ingredients, now: Ingredients) -> Iterator[str]:
    yield from (f"{file} changed" for file in changed_code(before.get("code", {}), now["code"]))
    olds = {(role, kind, i): found for i, (role, kind, found) in enumerate(before.get("plugins", []))}
    news = {(role, kind, i): found for i, (role, kind, found) in enumerate(now["plugins"])}
    for place, new in news.items():
        old = olds.get(place)
        if old is None or old["plugin"] != new["plugin"]:
            yield f"the {place[0]} is {new['plugin']}" + (f", and was {old['plugin']}" if old else "")
            continue
        if old["version"] != new["version"]:
            yield f"{new['plugin']} has version {new['version']}, and had {old['version']}"
        yield from (f"{place[0]}.{difference}" for difference in _differences(old["config"], new["config"]))
        if old["files"] != new["files"]:
            yield f"files that {new['plugin']} reads changed"
        if old["nested"] != new["nested"]:
            yield f"a plugin inside {new['plugin']} changed"
    yield from (f"the {place[0]} {old['plugin']} is gone" for place, old in olds.items() if place not in news)
    yield from _differences(before.get("settings", {}), now["settings"])
    if before.get("seed") != now["seed"]:
        yield "the seed changed"
    old_inputs = before.get("inputs", {})
    for name in sorted({*old_inputs, *now["inputs"]}):
        if old_inputs.get(name) != now["inputs"].get(name):
            yield f"its {name} changed" if name in old_inputs and name in now["inputs"] else f"it takes {name} or did"
    if before.get("metrics") != now["metrics"]:
        yield "what was measured changed"
    if (before.get("format"), before.get("stage")) != (now["format"], now["stage"]):
        yield "the stage itself changed"


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """`a.b: 1 -> 2` for each setting that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{at}.{name}" if at else str(name))
    elif old != new:
        yield f"{at}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric.model_dump(mode="json") for name, metric in metrics.items()}
