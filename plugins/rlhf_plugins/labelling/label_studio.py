"""Label Studio's results -> our fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

VALUE_OF = {"textarea": "text", "pairwise": "selected"}
"""Type of a result -> where its value stands; under the type's own name where it is not here."""


def fields_in(results: Iterable[Any], low: int) -> dict[str, Any]:
    """Field -> value of one annotation; stars, which begin at 1, as scores, which begin at `low`."""
    fields = {}
    for result in results:
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            kind = str(result.get("type"))
            fields[str(result.get("from_name"))] = _value(kind, result["value"], low)
    return fields


def _value(kind: str, value: Mapping[str, Any], low: int) -> Any:
    found = value.get(VALUE_OF.get(kind, kind))
    if kind == "choices" and isinstance(found, list) and len(found) == 1:
        return found[0]
    if kind == "textarea" and isinstance(found, list):
        return "\n".join(map(str, found))
    if kind == "ranker" and isinstance(found, dict) and len(found) == 1:
        return next(iter(found.values()))
    if kind == "rating" and isinstance(found, (int, float)):
        return low + found - 1
    return found
