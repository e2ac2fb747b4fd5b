"""Folders in which artifacts are made before they are published."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_flows.artifact_store.local import local_problems
from rlhf_flows.artifact_store.locks import hold


class Drafts:
    """Drafts below one folder, each locked by the process that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """An empty folder to fill; gone afterwards unless it was moved away."""
        draft = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('.')}-{uuid.uuid4().hex[:12]}"
        lock = _lock(draft)
        with local_problems(self.folder):
            descriptor = hold(lock)
            assert descriptor is not None
            draft.mkdir()
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what killed processes left half written; drafts that somebody still fills stay."""
        if not self.folder.is_dir():
            return
        for draft in [path for path in self.folder.iterdir() if path.suffix != ".lock"]:
            self._remove(draft)
        for lock in self.folder.glob("*.lock"):
            if not lock.with_suffix("").is_dir():
                self._remove(lock.with_suffix(""))

    def _remove(self, draft: Path) -> None:
        lock = _lock(draft)
        descriptor = hold(lock, wait=False)
        if descriptor is None:
            return
        shutil.rmtree(draft, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.lock")
