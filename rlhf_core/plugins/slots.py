"""Where a configuration names plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from rlhf_core.plugins.base import Use

Loc = tuple[str | int, ...]
"""A place in a configuration: field names and list positions, from the outside in."""


class Slot(NamedTuple):
    """A place in a pipeline, or in a plugin's config, that names a plugin."""

    loc: Loc
    kind: str
    use: Use


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


def _items(value: Any, loc: Loc) -> list[tuple[Loc, Any]]:
    if isinstance(value, list | tuple):
        return [((*loc, i), item) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return [((*loc, str(key)), item) for key, item in value.items()]
    return [(loc, value)]
