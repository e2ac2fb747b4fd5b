"""The JSON Schema of pipeline files with all installed plugins, for editors."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from rlhf_core.errors import PluginError
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.space_schema import space_rule
from rlhf_core.plugins import CONTRACTS
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.plugins.step import Step, StepUse

Schema = dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def pipeline_schema(registry: Registry) -> Schema:
    """A JSON Schema (draft 2020-12) in which each plugin slot knows the fields of every plugin that fits there,
    and `tune.space` those of the reward model.

    Plugins that are broken are left out. A text that takes a number from the environment (`${N}`) is
    refused by it, since editors cannot know what it will become.
    """
    schema = Pipeline.model_json_schema(schema_generator=_Untitled)
    definitions = _take_definitions(schema, "pipeline")
    schema = _link(schema, "pipeline")
    for kind in CONTRACTS:
        choices = []
        for info in registry.of_kind(kind):
            try:
                plugin = registry.load(kind, info.full_name)
            except PluginError:
                continue
            name = f"{kind}.{info.distribution}.{info.name}"
            definitions |= _plugin_definitions(name, plugin, info, unique=_is_unique(registry, info))
            choices.append({"$ref": f"#/$defs/{name}"})
        definitions[kind] = {"anyOf": choices} if choices else {"not": {}}
    rewards = [
        definitions[choice["$ref"].removeprefix("#/$defs/")] for choice in definitions["reward_models"].get("anyOf", [])
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "allOf": [space_rule(reward, definitions) for reward in rewards],
        "$defs": definitions,
    }


def _is_unique(registry: Registry, info: PluginInfo) -> bool:
    return not any(info in group for group in registry.clashes())


def _plugin_definitions(name: str, plugin: type[Plugin], info: PluginInfo, *, unique: bool) -> Schema:
    """The definition of `{use: ..., field: ...}` under `name`, and those that it refers to."""
    schema = plugin.Config.model_json_schema(schema_generator=_Untitled)
    definitions = _take_definitions(schema, name)
    schema = _link(schema, name)
    if "$ref" in schema:  # a config that contains itself
        schema = dict(definitions[schema["$ref"].removeprefix("#/$defs/")])
    use: Schema = {"enum": [info.name, info.full_name]} if unique else {"const": info.full_name}
    places = _places_of_steps() if info.kind == Step.kind else {}
    definitions[name] = {
        "type": "object",
        "description": inspect.getdoc(plugin) or "",
        "properties": {"use": use, **places, **schema.get("properties", {})},
        "required": ["use", *schema.get("required", [])],
        "additionalProperties": False,
    }
    if places:
        definitions[name]["oneOf"] = [{"required": [place]} for place in places]
    return definitions


def _places_of_steps() -> Schema:
    """What a step says in a pipeline beside its own options."""
    fields = StepUse.model_json_schema(schema_generator=_Untitled)["properties"]
    return {
        name: {
            "enum": field["anyOf"][0].get("enum", [field["anyOf"][0].get("const")]),
            "description": field["description"],
        }
        for name, field in fields.items()
        if name != "use"
    }


def _take_definitions(schema: Schema, prefix: str) -> Schema:
    """The definitions of `schema`, removed from it, under names that no other schema uses."""
    return {f"{prefix}.{name}": _link(inner, prefix) for name, inner in schema.pop("$defs", {}).items()}


def _link(node: Any, prefix: str, kind: str | None = None) -> Any:
    """`node` with references to definitions under `prefix`, and to the plugins of `kind` in place of the bare `Use`."""
    if isinstance(node, list):
        return [_link(item, prefix, kind) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node.get("plugin_kind", kind)
    linked: Schema = {}
    for key, value in node.items():
        if key == "$ref":
            target = value.removeprefix("#/$defs/")
            linked[key] = f"#/$defs/{kind}" if target in ("Use", "StepUse") and kind else f"#/$defs/{prefix}.{target}"
        elif key == "properties":  # names, among which may be `default` and `enum`
            linked[key] = {name: _link(inner, prefix, kind) for name, inner in value.items()}
        elif key in ("default", "examples", "const", "enum"):
            linked[key] = value
        elif key != "plugin_kind":
            linked[key] = _link(value, prefix, kind)
    return linked
