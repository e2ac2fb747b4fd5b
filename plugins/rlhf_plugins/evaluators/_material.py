"""Reading benchmark data: a file, or a data set of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.plugins import PluginConfig
from rlhf_plugins.tabular.rows import Layout, Problem, format_of, read_rows


class MaterialConfig(PluginConfig):
    """Which data."""

    data: str
    """A file (CSV, TSV, JSON, JSONL or Parquet, also gzipped), or the name of a data set on the Hugging Face hub."""
    name: str | None = None
    """On the hub: the configuration."""
    split: str = "validation"
    """On the hub: the split."""
    revision: str | None = None
    """On the hub: a commit, tag or branch; name a commit to measure on the same data for ever."""
    limit: int | None = Field(None, ge=1)
    """Only so many items, the first ones."""


def reads(config: Any) -> tuple[Path, ...]:
    """The file, where it is one."""
    return (Path(config.data),) if Path(config.data).expanduser().is_file() else ()


def rows_of(config: Any) -> list[dict[str, Any]]:
    """The items as dictionaries. Raises DataError where there is nothing to read, naming the broken lines."""
    path = Path(config.data).expanduser()
    rows = _from_file(path) if path.is_file() or path.suffix else _from_hub(config)
    rows = rows[: config.limit]
    if not rows:
        raise DataError("no items to measure on", where=config.data)
    return rows


def read_json(path: Path) -> Any:
    """A JSON file. Raises DataError where it is none."""
    try:
        return json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read it as JSON: {error}", where=str(path)) from error


def need(row: dict[str, Any], name: str, where: str) -> Any:
    """A field of an item. Raises DataError where it is not there."""
    if name not in row:
        raise DataError(f"an item has no `{name}`", where=where, remedy=f"It has: {', '.join(map(str, row))}.")
    return row[name]


def _from_file(path: Path) -> list[dict[str, Any]]:
    kind = format_of(path)
    found = list(read_rows(path, Layout(kind, delimiter="\t" if kind == "tsv" else ","), ()))
    if broken := [row for row in found if isinstance(row, Problem)]:
        raise DataError(f"{len(broken)} rows cannot be read; the first is number {broken[0].number}: {broken[0].what}",
                        where=str(path))  # fmt: skip
    return [row.cells for row in found if not isinstance(row, Problem)]


def _from_hub(config: Any) -> list[dict[str, Any]]:
    import datasets

    try:
        data = datasets.load_dataset(config.data, config.name, split=config.split, revision=config.revision)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"cannot load the data set `{config.data}`: {reason}",
            remedy="Give a file, or the name of a data set on the Hugging Face hub with its `name` and `split`.",
        ) from error
    return [dict(row) for row in data]
