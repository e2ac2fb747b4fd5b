"""Artifacts in an object store, with a bounded local cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rlhf_flows.artifact_store.cache import Cache
from rlhf_flows.artifact_store.connection import Connection
from rlhf_flows.artifact_store.drafts import Drafts
from rlhf_flows.artifact_store.local import local_problems
from rlhf_flows.artifact_store.manifest import Manifest
from rlhf_flows.artifact_store.ref import DamagedArtifact, Ref

T = TypeVar("T")

_AT_ONCE = 4
"""Files that are sent or fetched at the same time; each may hold some hundred megabytes of memory."""


class RemotePlace:
    """Artifacts as objects below a URL. The manifest is written last: an artifact without one is absent.

    An object store has no locks. Two machines that publish the same artifact send equal files to equal names; where
    content names itself and the files may differ, each sends to names of its own, and the last manifest counts.
    """

    def __init__(self, connection: Connection, cache: Cache, drafts: Drafts) -> None:
        self.connection = connection
        self.cache = cache
        self.drafts = drafts
        self._verified: set[str] = set()

    def url(self, name: str) -> str:
        """The URL of what lies at `name`."""
        return f"{self.connection.url}/{name}" if name else self.connection.url

    def holds(self, ref: Ref) -> bool:
        """Whether the artifact's manifest is there."""
        return self.read(ref.manifest) is not None

    def folder(self, ref: Ref) -> Path:
        """A local copy of the artifact, fetched where there is none; hashed the first time. Raises DamagedArtifact."""
        with local_problems(self.cache.folder):
            if found := self.cache.get(ref):
                folder, manifest = found
                if ref.uri in self._verified:
                    return folder
                try:
                    manifest.check(folder, ref, str(folder))
                except DamagedArtifact:
                    self.cache.drop(ref)  # only the copy is damaged; whether the artifact is will show
                else:
                    self._verified.add(ref.uri)
                    return folder
            with self.drafts.draft(f"fetch-{ref.kind}-{ref.short}") as draft:
                manifest = self._manifest(ref)
                self._fetch(ref, manifest, draft)
                folder = self.cache.put(ref, manifest, draft, handed=True)
            self._verified.add(ref.uri)
            return folder

    def keep(self, ref: Ref, manifest: Manifest, draft: Path) -> None:
        """Send the files of `draft`, then the manifest, unless the artifact is there and complete."""
        there = self._there(ref, manifest)
        if there is None:
            target = _files(ref, manifest)
            with local_problems(draft):
                self._each(
                    manifest.files, lambda fs, root, name: fs.put_file(str(draft / name), f"{root}/{target}/{name}")
                )
            self.write(ref.manifest, manifest.text().encode())
        if there is None or there.files == manifest.files:
            with local_problems(self.cache.folder):
                self.cache.put(ref, manifest, draft, handed=False)

    def discard(self, ref: Ref) -> None:
        """Remove an artifact and its local copy."""
        self._verified.discard(ref.uri)
        self.remove(ref.manifest)  # first: without it the artifact counts as absent
        self._call(lambda fs, root: fs.rm(f"{root}/{ref.uri}", recursive=True))
        with local_problems(self.cache.folder):
            self.cache.drop(ref)

    def clear(self) -> None:
        """Nothing: what killed processes left in the store has no manifest and is overwritten."""

    def write(self, name: str, content: bytes) -> None:
        """Replace a document in one step."""
        self.connection.call(lambda fs, root: fs.pipe_file(f"{root}/{name}", content))

    def read(self, name: str) -> bytes | None:
        """A document, or None where there is none."""
        found = self._call(lambda fs, root: fs.cat_file(f"{root}/{name}"))
        return None if found is None else bytes(found)

    def names(self, folder: str) -> list[str]:
        """Names of the documents in a folder."""
        return self._call(lambda fs, root: _documents(fs, f"{root}/{folder}")) or []

    def remove(self, name: str) -> None:
        """Remove a document; nothing where there is none."""
        self._call(lambda fs, root: fs.rm_file(f"{root}/{name}"))

    def _manifest(self, ref: Ref) -> Manifest:
        text = self.read(ref.manifest)
        if text is None:
            raise DamagedArtifact(ref, Path(ref.manifest).name, "is missing", self.url(ref.uri))
        return Manifest.parse(text, ref, self.url(ref.manifest))

    def _there(self, ref: Ref, new: Manifest) -> Manifest | None:
        """The manifest of the complete artifact that is there already."""
        try:
            there = self._manifest(ref)
            if new.tree == ref.sha256 and there.files != new.files:
                return None
            self._check_sizes(ref, there)
        except DamagedArtifact:
            return None
        return there

    def _check_sizes(self, ref: Ref, manifest: Manifest) -> None:
        folder = f"/{_files(ref, manifest)}/"
        found = self._call(lambda fs, root: fs.find(f"{root}{folder}", detail=True)) or {}
        sizes = {name.partition(folder)[2]: int(info["size"]) for name, info in found.items()}
        manifest.check_sizes(sizes, ref, self.url(ref.uri))

    def _fetch(self, ref: Ref, manifest: Manifest, draft: Path) -> None:
        self._check_sizes(ref, manifest)  # before anything large comes over the line
        for name in {str(Path(name).parent) for name in manifest.files} | set(manifest.folders):
            (draft / name).mkdir(parents=True, exist_ok=True)
        source = _files(ref, manifest)
        try:
            self._each(manifest.files, lambda fs, root, name: fs.get_file(f"{root}/{source}/{name}", str(draft / name)))
        except FileNotFoundError:
            self._check_sizes(ref, manifest)  # somebody has removed it meanwhile
            raise
        manifest.check(draft, ref, self.url(ref.uri))

    def _call(self, request: Callable[[Any, str], T]) -> T | None:
        """The result of a request, or None where nothing lies there."""
        with suppress(FileNotFoundError):
            return self.connection.call(request)
        return None

    def _each(self, names: Iterable[str], request: Callable[[Any, str, str], object]) -> None:
        """Do the same with several files, some at a time; each is repeated for itself while the store is away."""

        def one(name: str) -> None:
            self.connection.call(lambda fs, root: request(fs, root, name))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = [pool.submit(one, name) for name in names]
            try:
                for each in running:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _files(ref: Ref, manifest: Manifest) -> str:
    """Where the files lie, relative to the root."""
    return ref.uri if manifest.tree == ref.sha256 else f"{ref.uri}/{manifest.tree[:12]}"


def _documents(fs: Any, folder: str) -> list[str]:
    """The documents in a folder. A store may keep an object for the folder itself, which is listed with them."""
    below = f"{folder}/"
    found = (str(each["name"]) for each in fs.ls(folder, detail=True) if each["type"] == "file")
    return [name.removeprefix(below) for name in found if name.startswith(below) and name != below]
