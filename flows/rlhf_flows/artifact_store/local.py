"""Artifacts in a folder of this machine, or of a disk that several machines share."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf_core.errors import WorkspaceError
from rlhf_core.files import replaced, sync_tree
from rlhf_flows.artifact_store.locks import locked
from rlhf_flows.artifact_store.manifest import Manifest
from rlhf_flows.artifact_store.ref import DamagedArtifact, Ref


class LocalPlace:
    """Artifacts as folders `KIND/SHA256` below one root, each with its manifest beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified: set[str] = set()
        self._writing = threading.Lock()

    def url(self, name: str) -> str:
        """The path of what lies at `name`."""
        return str(self.root / name) if name else str(self.root)

    def holds(self, ref: Ref) -> bool:
        """Whether the artifact's manifest is there."""
        return (self.root / ref.manifest).is_file()

    def folder(self, ref: Ref) -> Path:
        """The artifact's folder; hashed the first time. Raises DamagedArtifact."""
        folder = self.root / ref.uri
        if ref.uri not in self._verified or not folder.is_dir():
            with local_problems(self.root):
                self._manifest(ref).check(folder, ref, str(folder))
            self._verified.add(ref.uri)
        return folder

    def keep(self, ref: Ref, manifest: Manifest, draft: Path) -> None:
        """Move `draft` to its place, unless the artifact is there and complete."""
        with local_problems(self.root):
            sync_tree(draft)
            # One lock for all artifacts whose digests begin alike: a bounded number of files, held for a moment.
            with locked(self.root / ".locks" / ref.sha256[:2]):
                if self._is_complete(ref, manifest):
                    return
                self._remove(ref)
                self._move(draft, self.root / ref.uri)
                with replaced(self.root / ref.manifest) as text:
                    text.write_text(manifest.text(), encoding="utf-8")
                _sync_folder((self.root / ref.uri).parent)

    def discard(self, ref: Ref) -> None:
        """Remove an artifact."""
        with local_problems(self.root), locked(self.root / ".locks" / ref.sha256[:2]):
            self._remove(ref)

    def clear(self) -> None:
        """Remove what killed processes were about to remove or to copy here."""
        aside = self.root / ".moving"
        for folder in aside.iterdir() if aside.is_dir() else ():
            # Another machine may share this disk; what it is at work on is young.
            with suppress(OSError):
                if folder.stat().st_mtime < time.time() - 24 * 3600:
                    shutil.rmtree(folder, ignore_errors=True)

    def write(self, name: str, content: bytes) -> None:
        """Replace a document in one step."""
        with local_problems(self.root), self._writing, replaced(self.root / name) as draft:
            draft.write_bytes(content)

    def read(self, name: str) -> bytes | None:
        """A document, or None where there is none."""
        with local_problems(self.root):
            try:
                return (self.root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def names(self, folder: str) -> list[str]:
        """Names of the documents in a folder."""
        with local_problems(self.root):
            try:
                # A name that begins with a dot is a document that is just being written.
                return [each.name for each in (self.root / folder).iterdir() if each.is_file() and each.name[0] != "."]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def remove(self, name: str) -> None:
        """Remove a document; nothing where there is none."""
        with local_problems(self.root), suppress(FileNotFoundError, NotADirectoryError):
            (self.root / name).unlink()

    def _manifest(self, ref: Ref) -> Manifest:
        path = self.root / ref.manifest
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedArtifact(ref, path.name, "is missing", str(self.root / ref.uri)) from error
        return Manifest.parse(text, ref, str(path))

    def _is_complete(self, ref: Ref, new: Manifest) -> bool:
        if not self.holds(ref):
            return False
        try:
            there = self._manifest(ref)
            if new.tree == ref.sha256 and there.files != new.files:
                return False
            self._verified.discard(ref.uri)
            self.folder(ref)
        except DamagedArtifact:
            return False
        return True

    def _remove(self, ref: Ref) -> None:
        self._verified.discard(ref.uri)
        (self.root / ref.manifest).unlink(missing_ok=True)  # first: without it the artifact counts as absent
        folder = self.root / ref.uri
        if folder.exists():
            gone = self._aside()
            folder.replace(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _move(self, draft: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.replace(final)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Drafts lie on another disk than the root.
            copy = self._aside()
            try:
                shutil.copytree(draft, copy)
                sync_tree(copy)
                copy.replace(final)
            finally:
                shutil.rmtree(copy, ignore_errors=True)

    def _aside(self) -> Path:
        folder = self.root / ".moving"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex


@contextmanager
def local_problems(root: Path) -> Iterator[None]:
    """Turn a full disk, missing permissions and the like into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise explained(error, str(root)) from error


def explained(error: OSError, where: str) -> WorkspaceError:
    """What a failed operation of the file system means to the reader."""
    where = str(error.filename or where)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkspaceError(
            "the disk is full. Nothing that was accepted is lost: feedback and finished stages are complete.",
            where=where,
            remedy="Free some space and run the same command; it goes on from the last checkpoint.",
        )
    return WorkspaceError(
        f"the artifact store cannot be read or written: {error.strerror or error}.",
        where=where,
        remedy="See to it that this user may write there, or choose another place with RLHF_ARTIFACTS.",
    )


def _sync_folder(folder: Path) -> None:
    """Flush the names in `folder`, so that a rename outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
