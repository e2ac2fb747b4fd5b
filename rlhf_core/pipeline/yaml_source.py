"""YAML that remembers where everything stands, so that an error about a value can name its line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlhf_core.errors import PipelineError
from rlhf_core.plugins.slots import Loc

OVERRIDE = "--set"
MAX_NODES = 20_000
"""Aliases are written out; a file that grows beyond this many values is an attack or a mistake."""

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number and `2024-01-31` stays text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Document:
    """A YAML file as plain Python values with the line of each."""

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str] | None = None,
        *,
        what: str = "pipeline",
        remedy: str = "`rlhf init NAME` writes a pipeline to start from.",
    ) -> None:
        """Read `path`; `${NAME}` and `${NAME:-default}` in its texts are taken from `environment`.

        `what` it should be and the `remedy` where it is missing or empty are for the errors.
        Raises PipelineError where the file is missing, not text, empty, not YAML, or not a mapping.
        """
        self.path = path
        self._what, self._remedy = what, remedy
        self._environment = os.environ if environment is None else environment
        self._lines: dict[Loc, int] = {}
        self._overridden: set[Loc] = set()
        self._flat: set[yaml.Node] = set()
        self._nodes = 0
        self.data: dict[str, Any] = self._read(_text_of(path, remedy))

    def where(self, loc: Loc) -> str:
        """`file:line` of the value at `loc`, or of the nearest thing around it; `--set` where that set it."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self._overridden:
                return OVERRIDE
            if loc[:end] in self._lines:
                return f"{self.path}:{self._lines[loc[:end]]}"
        return str(self.path)

    def override(self, assignment: str) -> None:
        """Apply `a.b.0.c=value`, see `assign`. Raises PipelineError."""
        loc = assign(self.data, assignment)
        self._lines = {known: line for known, line in self._lines.items() if known[: len(loc)] != loc}
        self._overridden.add(loc)

    def _read(self, text: str) -> dict[str, Any]:
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            data = None if node is None else self._value(loader, node, (), ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.path}:{mark.line + 1}" if mark else str(self.path)
            raise PipelineError(f"this is not YAML: {_first_line(error)}", where=place) from error
        except yaml.YAMLError as error:
            raise PipelineError(f"this is not YAML: {_first_line(error)}", where=str(self.path)) from error
        except RecursionError as error:
            raise PipelineError("the YAML is nested too deeply.", where=str(self.path)) from error
        if data is None:
            raise PipelineError("the file is empty.", where=str(self.path), remedy=self._remedy)
        if not isinstance(data, dict):
            raise PipelineError(f"a {self._what} is a mapping of names to values.", where=f"{self.path}:1")
        return data

    def _value(self, loader: _Loader, node: yaml.Node, loc: Loc, above: tuple[yaml.Node, ...]) -> Any:
        """The Python value of `node`; `above` holds the nodes around it."""
        line = node.start_mark.line + 1
        self._lines.setdefault(loc, line)
        self._nodes += 1
        if node in above:
            raise PipelineError("an alias contains itself.", where=f"{self.path}:{line}")
        if self._nodes > MAX_NODES:
            raise PipelineError(f"the file has more than {MAX_NODES} values.", where=f"{self.path}:{line}")
        if isinstance(node, yaml.MappingNode):
            if node not in self._flat:
                self._refuse_duplicates(node)
                loader.flatten_mapping(node)
                self._flat.add(node)
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = self._key(loader, key_node)
                # A merged key (`<<`) comes before the mapping's own, which wins.
                self._lines[(*loc, key)] = key_node.start_mark.line + 1
                mapping[key] = self._value(loader, value_node, (*loc, key), (*above, node))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*loc, i), (*above, node)) for i, item in enumerate(node.value)]
        value = loader.construct_object(node)
        return self._expand(value, line) if isinstance(value, str) else value

    def _key(self, loader: _Loader, node: yaml.Node) -> str:
        key = loader.construct_object(node)
        if not isinstance(key, str):
            where = f"{self.path}:{node.start_mark.line + 1}"
            raise PipelineError(
                f"the key `{node.value}` means {key!r} in YAML.", where=where, remedy="Put it in quotes."
            )
        return key

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                raise PipelineError(
                    f"`{key_node.value}` stands here again; it was given in line {seen[key_node.value]}.",
                    where=f"{self.path}:{line}",
                )
            if isinstance(key_node, yaml.ScalarNode):
                seen[key_node.value] = line

    def _expand(self, text: str, line: int) -> str:
        def replace(match: re.Match[str]) -> str:
            escaped, name, default = match.groups()
            if escaped:
                return match.group(0)[1:]
            value = self._environment.get(name, default)
            if value is None:
                raise PipelineError(
                    f"the environment variable {name} is not set.",
                    where=f"{self.path}:{line}",
                    remedy=f"Set it, or write ${{{name}:-default}}.",
                )
            return value

        return _VARIABLE.sub(replace, text)


def assign(data: dict[str, Any], assignment: str) -> Loc:
    """Apply `a.b.0.c=value`, where the value is YAML, to `data`; returns the path that was set.

    Mappings on the way are made where there are none. Raises PipelineError where the path leads nowhere.
    """
    target, equals, text = assignment.partition("=")
    keys = [part.strip() for part in target.split(".")]
    if not equals or not all(keys):
        raise PipelineError(
            f"`{assignment}` is not an assignment.", where=OVERRIDE, remedy=f"Write {OVERRIDE} name.name=value."
        )
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise PipelineError(f"the value of `{target}` is not YAML: {_first_line(error)}", where=OVERRIDE) from error
    place: Any = data
    loc: Loc = ()
    for key in keys[:-1]:
        step = _step(place, key, loc)
        if isinstance(place, dict) and place.get(step) is None:
            place[step] = {}
        place, loc = place[step], (*loc, step)
    last = _step(place, keys[-1], loc)
    place[last] = value
    return (*loc, last)


def _text_of(path: Path, remedy: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise PipelineError("there is no such file.", where=str(path), remedy=remedy) from error
    except OSError as error:
        raise PipelineError(f"the file cannot be read: {error.strerror}.", where=str(path)) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PipelineError(f"byte {error.start} is not UTF-8 text.", where=f"{path}:{line}") from error
    if "\0" in text:
        raise PipelineError("this is a binary file, not YAML.", where=str(path))
    return text


def _first_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part) + "."
    return str(error).splitlines()[0] + "."


def _step(place: Any, key: str, loc: Loc) -> str | int:
    """`key` as an index into `place`, which is the value at `loc`."""
    name = ".".join(map(str, loc))
    if isinstance(place, dict):
        return key
    if isinstance(place, list):
        if key.isdecimal() and int(key) < len(place):
            return int(key)
        first = next((item for item in place if isinstance(item, dict)), {})
        hint = f"Did you mean `{name}.0.{key}`?" if difflib.get_close_matches(key, first, n=1) else ""
        raise PipelineError(f"`{name}` is a list of {len(place)}; it has no `{key}`.", where=OVERRIDE, remedy=hint)
    raise PipelineError(f"`{name}` is the value {place!r}; it has no `{key}`.", where=OVERRIDE)
