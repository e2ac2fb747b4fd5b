"""Writing so that a reader or a kill never meets half of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A draft beside `path`, to be written by the body; it takes the place of `path` in one step, flushed to the disk.

    Where the body fails, `path` stays as it was and the draft is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def sync(file: Path) -> None:
    """Flush `file` to the disk."""
    with file.open("rb") as content:
        os.fsync(content.fileno())


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder` to the disk, so that a rename afterwards publishes complete content."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
