"""Writes small packages and distributions into folders, as pip leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Put files, by their paths inside it, into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else dedent(content).lstrip().encode())


def install(
    site: Path,
    distribution: str,
    version: str = "1.0",
    files: Mapping[str, str | bytes] = {},
    requires: Iterable[str] = (),
    entry_points: str = "",
    in_place: Path | None = None,
) -> None:
    """Put a distribution into `site`, with a record of its files; or the note that its code lies `in_place`."""
    write(site, files)
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    written = {"METADATA": metadata + "".join(f"Requires-Dist: {each}\n" for each in requires) + "\nWhat it is.\n"}
    if entry_points:
        written["entry_points.txt"] = entry_points
    if in_place:
        written["direct_url.json"] = json.dumps({"url": in_place.as_uri(), "dir_info": {"editable": True}})
    written["RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/METADATA", f"{info}/RECORD"])
    write(site / info, written)
