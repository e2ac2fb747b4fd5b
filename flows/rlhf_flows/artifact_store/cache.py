"""Local copies of artifacts from an object store: a bounded folder that several processes may share."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_core.files import replaced
from rlhf_flows.artifact_store.locks import hold, locked
from rlhf_flows.artifact_store.manifest import Manifest
from rlhf_flows.artifact_store.ref import DamagedArtifact, Ref

_SUFFIX = ".manifest.json"


class Cache:
    """Copies `KIND/SHA256` with their manifests; beyond `limit` bytes the least recently used ones go.

    A copy that a living process was handed stays: each process notes what it was handed in a file that it keeps locked.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._notes = _Notes(folder / ".users")

    def get(self, ref: Ref) -> tuple[Path, Manifest] | None:
        """The copy of `ref`, from now on this process's to read; None where there is none."""
        with self._locked():
            manifest = self.folder / ref.manifest
            try:
                found = Manifest.parse(manifest.read_bytes(), ref, str(manifest))
            except (FileNotFoundError, DamagedArtifact):
                return None
            if not (self.folder / ref.uri).is_dir():
                return None
            os.utime(manifest)  # the time of its last use
            self._notes.add(ref.uri)
            return self.folder / ref.uri, found

    def put(self, ref: Ref, manifest: Manifest, draft: Path, *, handed: bool) -> Path:
        """Move `draft` here, unless a copy is there already, and make room for it."""
        with self._locked():
            final = self.folder / ref.uri
            if not (self.folder / ref.manifest).is_file():
                shutil.rmtree(final, ignore_errors=True)  # what a killed process left
                final.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(final)
                with replaced(self.folder / ref.manifest) as text:
                    text.write_text(manifest.text(), encoding="utf-8")
            if handed:
                self._notes.add(ref.uri)
            self._make_room()
            return final

    def drop(self, ref: Ref) -> None:
        """Remove the copy of `ref`."""
        if self.folder.is_dir():
            with self._locked():
                self._remove(ref.uri)

    def _make_room(self) -> None:
        copies = sorted(self._copies(), key=lambda copy: copy.used)
        total = sum(copy.size for copy in copies)
        if total <= self.limit:
            return
        in_use = self._notes.all()
        for copy in copies:
            if total <= self.limit:
                return
            if copy.uri not in in_use:
                self._remove(copy.uri)
                total -= copy.size

    def _copies(self) -> Iterator[_Copy]:
        for path in self.folder.glob(f"[!.]*/*{_SUFFIX}"):
            uri = f"{path.parent.name}/{path.name.removesuffix(_SUFFIX)}"
            kind, sha256 = uri.split("/")
            try:
                manifest = Manifest.parse(path.read_bytes(), Ref(kind=kind, uri=uri, sha256=sha256), str(path))
            except DamagedArtifact:
                self._remove(uri)
                continue
            yield _Copy(uri, manifest.size, path.stat().st_mtime_ns)

    def _remove(self, uri: str) -> None:
        (self.folder / f"{uri}{_SUFFIX}").unlink(missing_ok=True)
        shutil.rmtree(self.folder / uri, ignore_errors=True)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / ".lock")


@dataclass(frozen=True)
class _Copy:
    uri: str
    size: int
    used: int
    """Nanoseconds since the epoch."""


class _Notes:
    """Which copies are in use: a file of each process, locked as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, uri: str) -> None:
        """Note that this process uses `uri`, until it ends."""
        mine = _of_this_process(self.folder)
        if uri not in mine.noted:
            os.write(mine.descriptor, f"{uri}\n".encode())
            mine.noted.add(uri)

    def all(self) -> set[str]:
        """What living processes use. The notes of the others are removed."""
        used = set()
        for path in self.folder.glob("*.txt"):
            descriptor = hold(path, wait=False)
            if descriptor is None:
                used.update(path.read_text().splitlines())
            else:
                with suppress(OSError):
                    path.unlink()
                os.close(descriptor)
        return used


@dataclass
class _Note:
    descriptor: int
    noted: set[str]


_NOTES: dict[tuple[int, Path], _Note] = {}
_OPENING = threading.Lock()


def _of_this_process(folder: Path) -> _Note:
    key = (os.getpid(), folder)  # a forked process writes notes of its own
    with _OPENING:
        if key not in _NOTES:
            descriptor = hold(folder / f"{uuid.uuid4().hex}.txt")
            assert descriptor is not None
            _NOTES[key] = _Note(descriptor, set())
        return _NOTES[key]
