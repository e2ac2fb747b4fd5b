"""Results of stages as folders named by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rlhf_core.files import sync_tree


class Ref(BaseModel):
    """What stages exchange instead of models and data: a kind, where it lies, and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    uri: str
    """Relative to the artifact root."""
    sha256: str

    @property
    def short(self) -> str:
        """The digest's first characters, for display and as the version of a policy."""
        return self.sha256[:12]


class ArtifactStore:
    """Folders below one root, `kind/sha256`. Publishing equal content twice stores it once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, ref: Ref) -> Path:
        """The folder behind `ref`."""
        return self.root / ref.uri

    def __contains__(self, ref: Ref) -> bool:
        return self.path(ref).is_dir()

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """An empty folder to fill; gone afterwards unless it was published."""
        folder = self.root / ".drafts" / f"{name}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_drafts(self) -> None:
        """Remove what killed processes left half written. Only for the holder of the workspace."""
        shutil.rmtree(self.root / ".drafts", ignore_errors=True)

    def publish(self, kind: str, draft: Path, digest: str | None = None) -> Ref:
        """Move the filled `draft` to its place in one step.

        `digest` identifies content that names itself (a snapshot of feedback, whose files also hold times).
        """
        digest = digest or tree_digest(draft)
        uri = f"{kind}/{digest}"
        final = self.root / uri
        if not final.is_dir():
            sync_tree(draft)
            final.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(final)
        return Ref(kind=kind, uri=uri, sha256=digest)


def tree_digest(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()
