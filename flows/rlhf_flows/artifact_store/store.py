"""The artifact store: where stages put their results and where any machine finds them."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rlhf_core.errors import WorkspaceError
from rlhf_flows.artifact_store.cache import Cache
from rlhf_flows.artifact_store.connection import Connection
from rlhf_flows.artifact_store.drafts import Drafts
from rlhf_flows.artifact_store.local import LocalPlace, local_problems
from rlhf_flows.artifact_store.manifest import Manifest, own_content
from rlhf_flows.artifact_store.ref import Ref, is_inside
from rlhf_flows.artifact_store.remote import RemotePlace

CACHE_BYTES = 50 * 2**30
"""Default bound of the local cache of a remote store."""


class Place(Protocol):
    """Where artifacts and documents lie."""

    def url(self, name: str) -> str:
        """The address of what lies at `name`, for people."""

    def holds(self, ref: Ref) -> bool:
        """Whether the artifact's manifest is there."""

    def folder(self, ref: Ref) -> Path:
        """A local folder with the artifact's verified files."""

    def keep(self, ref: Ref, manifest: Manifest, draft: Path) -> None:
        """Make the draft the artifact, unless that is there and complete."""

    def discard(self, ref: Ref) -> None:
        """Remove an artifact."""

    def clear(self) -> None:
        """Remove what killed processes left."""

    def write(self, name: str, content: bytes) -> None:
        """Replace a document in one step."""

    def read(self, name: str) -> bytes | None:
        """A document, or None where there is none."""

    def names(self, folder: str) -> list[str]:
        """Names of the documents in a folder."""

    def remove(self, name: str) -> None:
        """Remove a document; nothing where there is none."""


class ArtifactStore:
    """Artifacts `KIND/SHA256` and small documents below one root: a folder, or any URL that fsspec knows.

    `scratch` is a folder of this machine for drafts and, where the root is remote, for a cache of at most
    `cache_bytes`. Several processes and threads may use one root and one scratch folder at the same time.
    """

    def __init__(self, root: str, scratch: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.root = root
        self.scratch = scratch
        self.cache_bytes = cache_bytes
        self._drafts = Drafts(scratch / "drafts")
        folder = _local_folder(root)
        self.local = folder is not None
        """Whether the root is a folder, so that artifacts are used where they lie."""
        self._place: Place = (
            LocalPlace(folder)
            if folder is not None
            else RemotePlace(Connection(root), Cache(scratch / "cache", cache_bytes), self._drafts)
        )
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process verifies for itself and opens connections of its own.
        return type(self), (self.root, self.scratch, self.cache_bytes)

    def path(self, ref: Ref) -> Path:
        """A local folder with the artifact's files.

        Where the root is remote they are fetched, unless a copy is here. The first time, every file is compared with
        the manifest. Raises DamagedArtifact where one is missing or different.
        """
        with self._locks[ref.uri]:  # threads that need the same artifact wait for one of them to fetch it
            return self._place.folder(ref)

    def __contains__(self, ref: Ref) -> bool:
        return self._place.holds(ref)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """An empty folder of this machine to fill; gone afterwards unless it was published."""
        with self._drafts.draft(name) as draft:
            yield draft

    def clear_drafts(self) -> None:
        """Remove what killed processes left half written. What living ones are at work on stays."""
        with local_problems(self.scratch):
            self._drafts.clear()
            self._place.clear()

    def publish(self, kind: str, draft: Path, digest: str | None = None) -> Ref:
        """Make the filled `draft` an artifact, all at once.

        Equal content is stored once; one that is there but damaged or incomplete is replaced. `digest` identifies
        content that names itself (a snapshot of feedback, whose files also hold times): then a complete one that is
        there stays, although its files may differ.
        """
        with local_problems(draft):
            own_content(draft)
            manifest = Manifest.of(draft)
        sha256 = digest or manifest.tree
        ref = Ref(kind=kind, uri=f"{kind}/{sha256}", sha256=sha256)
        with self._locks[ref.uri]:
            self._place.keep(ref, manifest, draft)
        return ref

    def discard(self, ref: Ref) -> None:
        """Remove a damaged artifact and its cached copy, so that it can be published anew."""
        with self._locks[ref.uri]:
            self._place.discard(ref)

    def write_text(self, name: str, text: str) -> None:
        """Write a small document at the root, replacing it in one step."""
        self._place.write(_document(name), text.encode())

    def read_text(self, name: str) -> str | None:
        """A document's text, or None where there is none."""
        found = self._place.read(_document(name))
        return None if found is None else found.decode()

    def names(self, folder: str) -> list[str]:
        """Names of the documents in `folder`, relative to it, sorted."""
        return sorted(self._place.names(_document(folder)))

    def remove_text(self, name: str) -> None:
        """Remove a document; nothing where there is none."""
        self._place.remove(_document(name))

    def url(self, name: str) -> str:
        """The absolute path or URL of what lies at `name`, for people and for MLflow; of the root for an empty name."""
        return self._place.url(name)

    def check(self) -> None:
        """Raise ServerError or WorkspaceError where the store cannot be written and read: before hours of work."""
        name = f".check-{uuid.uuid4().hex}"
        self.write_text(name, "written to find out whether this store can be used\n")
        self.read_text(name)
        self.remove_text(name)


def _local_folder(root: str) -> Path | None:
    protocol, separator, path = root.partition("://")
    if not separator:
        return Path(root)
    return Path(path) if protocol in ("file", "local") else None


def _document(name: str) -> str:
    if not is_inside(name):
        raise WorkspaceError(f"`{name}` cannot name a document of the artifact store.", remedy="Use a relative name.")
    return name
