"""pydantic's validation errors in the words of a pipeline file."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rlhf_core.plugins.base import Use
from rlhf_core.plugins.slots import Loc


class Complaint(NamedTuple):
    """What is wrong with one field."""

    loc: Loc
    """Path of the field in the data that was validated."""
    what: str


def explain(error: ValidationError, model: type[BaseModel], data: Any) -> list[Complaint]:
    """Every problem that `model` has with `data`, one a field."""
    grouped: dict[Loc, list[str]] = {}
    for item in error.errors(include_url=False):
        loc = _real(item["loc"], data)
        if item["type"] == "missing":
            loc = (*loc, item["loc"][-1])
        message = _message(dict(item), model, loc)
        if message not in grouped.setdefault(loc, []):
            grouped[loc].append(message)
    return [Complaint(loc, "; or ".join(messages)) for loc, messages in grouped.items()]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean ...?`, or the known words where none is close, or nothing where there are none."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _real(loc: Sequence[int | str], data: Any) -> Loc:
    """`loc` without the names of union members that pydantic puts in it, which are not places in `data`."""
    found: list[int | str] = []
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            continue
        found.append(part)
    return tuple(found)


def _message(item: dict[str, Any], model: type[BaseModel], loc: Loc) -> str:
    kind, given = item["type"], item["input"]
    if kind == "extra_forbidden":
        return f"unknown field{did_you_mean(str(loc[-1]), _fields_at(model, loc[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind in ("value_error", "assertion_error"):
        return str(item["msg"]).partition(", ")[2]
    message = re.sub(r", unable to (parse|interpret).*", "", item["msg"]).replace("Input should", "should")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "should be `{use: NAME, ...}`" if _expects_plugin(model, loc) else "should be a mapping of names"
    if kind in ("tuple_type", "list_type"):
        message = "should be a list"
    if kind in ("too_short", "too_long"):
        return message.replace("Tuple", "list").replace("List", "list").replace("after validation, ", "")
    shown = "nothing" if given is None else repr(given)
    text = f"{message}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"
    if kind == "literal_error" and isinstance(given, str):
        close = difflib.get_close_matches(given, re.findall(r"'([^']*)'", item["msg"]), n=1)
        text += f"; did you mean `{close[0]}`?" if close else ""
    return text


def _fields_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Names of the fields of the model that stands at `loc` inside `model`."""
    in_mapping = False
    for part in loc:
        if isinstance(part, int) or in_mapping:
            in_mapping = False
            continue
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if field is None or inner is None:
            return []
        model, in_mapping = inner, get_origin(field.annotation) is dict
    return list(model.model_fields)


def _expects_plugin(model: type[BaseModel], loc: Loc) -> bool:
    names = [part for part in loc if isinstance(part, str)]
    if not names:
        return False
    for part in names[:-1]:
        inner = _model_in(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return False
        model = inner
    field = model.model_fields.get(names[-1])
    inner = None if field is None else _model_in(field.annotation)
    return inner is not None and issubclass(inner, Use)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated, tuple, list, dict):
        return next((found for found in map(_model_in, get_args(annotation)) if found), None)
    return None
