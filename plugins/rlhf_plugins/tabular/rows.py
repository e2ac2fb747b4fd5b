"""Files -> numbered rows, one at a time; what cannot be read as a row becomes a numbered problem."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import itertools
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from rlhf_core.errors import DataError

FileFormat = Literal["csv", "tsv", "jsonl", "json", "parquet"]
SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
HEAD = 100
"""How many JSON records are looked at to learn which keys exist."""

_MARK = "\udcff"
_UNDECODABLE = re.compile("[\ud800-\udfff]")
# Bytes that are not text in the file's encoding turn into a lone surrogate, which no well-formed text holds: so the
# rest of the file is still read, in every encoding, and the row that holds them can be named.
codecs.register_error("rlhf_plugins.mark", lambda error: (_MARK, error.end))  # type: ignore[attr-defined]


class Row(NamedTuple):
    """One record of the file."""

    number: int
    """Its line in CSV, TSV and JSONL (the first one, where it has several), its place from 1 in JSON and Parquet."""
    cells: dict[str, Any]


class Problem(NamedTuple):
    """A record that cannot be used, and why."""

    number: int
    what: str


class Layout(NamedTuple):
    """How a file is written down."""

    format: FileFormat
    header: bool | tuple[str, ...] = True
    """Whether the first line of CSV and TSV names the columns; or the names, where no line does."""
    delimiter: str = ","
    quoted: bool = True
    """Whether `"` quotes cells of CSV and TSV."""
    encoding: str = "utf-8"


def format_of(path: Path) -> FileFormat:
    """The format that the file's name says. Raises DataError where it says none."""
    name = path.name.lower().removesuffix(".gz")
    found = SUFFIXES.get(Path(name).suffix)
    if found is None:
        raise DataError(
            f"the file's name does not say its format: {path.name}",
            where=str(path),
            remedy=f"Say it: `format: csv` (or {', '.join(sorted(set(SUFFIXES.values()) - {'csv'}))}).",
        )
    return found


def unit_of(format: FileFormat) -> str:
    """What `Row.number` counts."""
    return "record" if format in ("json", "parquet") else "line"


def read_rows(path: Path, layout: Layout, wanted: Sequence[str]) -> Iterator[Row | Problem]:
    """The rows of a file, in order; CSV, TSV, JSONL and Parquet are streamed, a JSON array is held in memory.

    `wanted` are the names of the columns that must exist; only those are read from Parquet. Raises DataError where the
    file is missing, damaged, empty or lacks a column.
    """
    if not path.is_file():
        raise missing_file(path)
    readers = {"csv": _delimited, "tsv": _delimited, "jsonl": _json_lines, "json": _json_array, "parquet": _parquet}
    try:
        first = True
        for row in readers[layout.format](path, layout, wanted):
            first = False
            yield row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"the gzip file is damaged: {error}", where=str(path), remedy="Fetch it again.") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except LookupError as error:
        raise DataError(str(error), where=str(path), remedy="Name an encoding such as utf-8 or gb18030.") from error
    if first:
        raise DataError("the file has no rows", where=str(path))


def missing_file(path: Path) -> DataError:
    """The error for a path that is no file, with the name that was perhaps meant."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    what = "is a folder, not a file" if path.is_dir() else "no such file"
    remedy = f"Did you mean {path.parent / close[0]}?" if close and not path.is_dir() else ""
    return DataError(what, where=str(path), remedy=remedy or "Relative paths start at the current folder.")


def check_columns(where: str, wanted: Iterable[str], existing: Sequence[str]) -> None:
    """Raise DataError for the first wanted column that does not exist, with the ones that do."""
    for name in wanted:
        if name not in existing:
            close = difflib.get_close_matches(name, existing, n=1)
            guess = f"Did you mean `{close[0]}`? " if close else ""
            shown = ", ".join(existing[:30]) + (", …" if len(existing) > 30 else "")
            raise DataError(f"there is no column `{name}`", where=where, remedy=f"{guess}Columns: {shown}")


def _bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _text(path: Path, encoding: str, newline: str) -> IO[str]:
    import io

    # utf-8-sig also reads UTF-8 without the byte order mark that spreadsheets put in front.
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    return io.TextIOWrapper(_bytes(path), encoding=codec, errors="rlhf_plugins.mark", newline=newline)


def _undecodable(encoding: str) -> str:
    return f"not valid {encoding} text"


def _delimited(path: Path, layout: Layout, wanted: Sequence[str]) -> Iterator[Row | Problem]:
    with _text(path, layout.encoding, newline="") as file:
        quoting: Any = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=layout.delimiter, quoting=quoting, strict=True)
        names: list[str] | None = None if isinstance(layout.header, bool) else list(layout.header)
        if names is not None:
            check_columns(str(path), wanted, names)
        while True:
            number = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f" up to line {reader.line_num}" if reader.line_num > number else ""
                yield Problem(number, f"quotes or cells that do not end where they should{lines}: {error}")
                continue
            if not record:
                continue
            if names is None:
                names = record if layout.header else [str(place) for place in range(1, len(record) + 1)]
                _check_header(path, names, layout)
                check_columns(str(path), wanted, names)
                if layout.header:
                    continue
            if any(map(_UNDECODABLE.search, record)):
                yield Problem(number, _undecodable(layout.encoding))
            elif len(record) != len(names):
                yield Problem(number, f"{len(record)} columns where there should be {len(names)}")
            else:
                yield Row(number, dict(zip(names, record, strict=True)))


def _check_header(path: Path, names: list[str], layout: Layout) -> None:
    if any(map(_UNDECODABLE.search, names)):
        remedy = "Name the file's `encoding`, for example gb18030."
        raise DataError(_undecodable(layout.encoding), where=f"{path}:1", remedy=remedy)
    other = next((sign for sign in ("\t", ";", "|", ",") if sign != layout.delimiter and sign in names[0]), None)
    if len(names) == 1 and other and layout.header:
        what = f"only one column, `{names[0]}`, where {layout.delimiter!r} separates cells"
        raise DataError(what, where=f"{path}:1", remedy=f"Perhaps `delimiter: {other!r}`?")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"two columns are called `{twice[0]}`", where=f"{path}:1", remedy="Rename one of them.")


def _json_lines(path: Path, layout: Layout, wanted: Sequence[str]) -> Iterator[Row | Problem]:
    def parsed(file: IO[str]) -> Iterator[Row | Problem]:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if _UNDECODABLE.search(line):
                yield Problem(number, _undecodable(layout.encoding))
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                yield Problem(number, f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield Problem(number, "JSON nested too deeply")
            else:
                yield _record(number, value)

    with _text(path, layout.encoding, newline="\n") as file:
        yield from _with_known_keys(path, parsed(file), wanted)


def _json_array(path: Path, layout: Layout, wanted: Sequence[str]) -> Iterator[Row | Problem]:
    with _text(path, layout.encoding, newline="\n") as file:
        text = file.read()
    damaged = _UNDECODABLE.search(text)
    if damaged:
        line = text.count("\n", 0, damaged.start()) + 1
        raise DataError(_undecodable(layout.encoding), where=f"{path}:{line}", remedy="Name the file's `encoding`.")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "One JSON object a line? Then say `format: jsonl`." if error.msg == "Extra data" else ""
        raise DataError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", remedy=remedy) from error
    except RecursionError as error:
        raise DataError("JSON nested too deeply", where=str(path)) from error
    if not isinstance(values, list):
        raise DataError("the JSON is not a list of objects", where=str(path), remedy="Write [{…}, {…}], or JSON Lines.")
    yield from _with_known_keys(path, itertools.starmap(_record, enumerate(values, 1)), wanted)


def _record(number: int, value: Any) -> Row | Problem:
    return Row(number, value) if isinstance(value, dict) else Problem(number, "not a JSON object")


def _with_known_keys(path: Path, rows: Iterator[Row | Problem], wanted: Sequence[str]) -> Iterator[Row | Problem]:
    """JSON has no header: a key that none of the first records has is a missing column, else a gap in its record."""
    head = list(itertools.islice(rows, HEAD))
    keys = list(dict.fromkeys(key for row in head if isinstance(row, Row) for key in row.cells))
    if keys:
        check_columns(str(path), wanted, keys)
    yield from itertools.chain(head, rows)


def _parquet(path: Path, layout: Layout, wanted: Sequence[str]) -> Iterator[Row | Problem]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as unpacked:
        source: Any = path
        if path.suffix.lower() == ".gz":
            with _bytes(path) as packed:
                shutil.copyfileobj(packed, unpacked)
            source = unpacked
        try:
            file = pyarrow.parquet.ParquetFile(source)
            check_columns(str(path), wanted, file.schema_arrow.names)
            numbers = itertools.count(1)
            for batch in file.iter_batches(batch_size=1024, columns=list(wanted)):
                for cells in batch.to_pylist():
                    yield Row(next(numbers), cells)
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"not a readable Parquet file: {reason}", where=str(path)) from error
