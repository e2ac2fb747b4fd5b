"""The names that `tune.space` may hold, as JSON Schema: the fields of the reward model that the pipeline names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
DEPTH = 3
"""How deep names are known: `members.0.lora.r` is a field of a field of a field."""
SPAN = {"$ref": "#/$defs/pipeline.Span"}


def space_rule(plugin: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Where `reward` is the plugin of the definition `plugin`, each name in `tune.space` is one of its fields, or of
    those of the sections and plugins in them. `definitions` are those that `plugin` refers to.
    """
    fields = _fields(plugin)
    nested = sorted({name for name in _names(plugin, definitions, DEPTH) if name not in fields})
    space: Schema = {
        "properties": {
            name: {**SPAN, "description": field["description"]} if "description" in field else SPAN
            for name, field in fields.items()
        },
        "additionalProperties": False,
    }
    if nested:
        space["patternProperties"] = {f"^(?:{'|'.join(nested)})$": SPAN}
    reward = {"properties": {"use": plugin["properties"]["use"]}, "required": ["use"]}
    return {
        "if": {"properties": {"reward": reward}, "required": ["reward"]},
        "then": {"properties": {"tune": {"properties": {"space": space}}}},
    }


def _fields(plugin: Schema) -> dict[str, Schema]:
    return {name: node for name, node in plugin.get("properties", {}).items() if name != "use"}


def _names(model: Schema, definitions: Mapping[str, Schema], depth: int) -> Iterator[str]:
    """Regular expressions of the dotted names below `model`."""
    for name, node in _fields(model).items():
        yield re.escape(name)
        if depth > 1:
            below: dict[str, set[str]] = {}
            for between, inner in _inside(node, definitions):
                below.setdefault(between, set()).update(_names(inner, definitions, depth - 1))
            for between, names in below.items():
                if names:
                    yield rf"{re.escape(name)}{between}\.(?:{'|'.join(sorted(names))})"


def _inside(node: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """The models that may stand at `node`, each with what a name has between the field and the model's own fields."""
    if "$ref" in node:
        yield from _inside(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    elif "properties" in node:
        yield "", node
    for choice in node.get("anyOf", []):
        yield from _inside(choice, definitions)
    if isinstance(node.get("items"), dict):
        yield from ((rf"\.[0-9]+{between}", model) for between, model in _inside(node["items"], definitions))
