"""Data source `table`: your own file of prompts, answers, scores, choices or clicks."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rlhf_plugins.tabular.mapping import MappingConfig
from rlhf_plugins.tabular.rows import FileFormat, Layout, Problem, Row, format_of, read_rows, unit_of
from rlhf_plugins.tabular.source import RowSource


class Table(RowSource):
    """Reads CSV, TSV, JSON Lines, JSON arrays and Parquet, and the same packed with gzip.

    A row that cannot be used is an error with its line and what is wrong with it; `broken_rows: skip` uses the others.
    """

    class Config(MappingConfig):
        """Where the file lies, how it is written, and what its columns mean."""

        path: Path
        """The file; relative to the current folder."""
        format: FileFormat | None = None
        """csv, tsv, jsonl, json or parquet; found by the file's name where empty."""
        header: bool | tuple[str, ...] = True
        """Whether the first line of CSV and TSV names the columns; false calls them 1, 2, 3, …; a list names them."""
        delimiter: str | None = Field(None, min_length=1, max_length=1)
        """What separates cells of CSV and TSV; a comma and a tab where empty."""
        quoted: bool | None = None
        """Whether `"` quotes cells; where empty, in CSV yes and in TSV no."""
        encoding: str = "utf-8"
        """Encoding of the text; gb18030 reads older Chinese files. A byte order mark is understood."""

        @field_validator("encoding")
        @classmethod
        def _known(cls, name: str) -> str:
            try:
                codecs.lookup(name)
            except LookupError:
                raise ValueError(f"unknown encoding {name!r}; for example utf-8, gb18030, utf-16, latin-1") from None
            return name

    def rows(self) -> Iterator[Row | Problem]:
        """The file's rows."""
        config: Table.Config = self.config
        format = self._format()
        layout = Layout(
            format=format,
            header=config.header,
            delimiter=config.delimiter or ("\t" if format == "tsv" else ","),
            quoted=format == "csv" if config.quoted is None else config.quoted,
            encoding=config.encoding,
        )
        return read_rows(self._path(), layout, config.wanted)

    def place(self) -> str:
        """The file's path."""
        return str(self._path())

    def unit(self) -> str:
        """Lines or records."""
        return unit_of(self._format())

    def title(self) -> str:
        """The file's name without its suffixes."""
        return self._path().name.split(".")[0] or self._path().name

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The table."""
        return (config.path,)

    def _path(self) -> Path:
        path: Path = self.config.path
        return path.expanduser()

    def _format(self) -> FileFormat:
        return self.config.format or format_of(self._path())
