"""The workspace: the folder where a project's feedback, runs, artifacts and checkpoints live."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_core.errors import Busy, RlhfError, WorkspaceError
from rlhf_core.files import replaced

if TYPE_CHECKING:
    from rlhf_flows.artifact_store import ArtifactStore

FORMAT = 1
"""Version of the workspace layout; another version is refused, never half understood."""


@dataclass(frozen=True)
class Workspace:
    """Paths and settings of one workspace. Servers instead of files are settings: see the properties' variables."""

    folder: Path
    artifacts_root: str = ""
    """Where the results of stages lie: a folder or a URL; empty for the workspace's own folder."""

    @classmethod
    def open(cls, folder: Path, artifacts: str | None = None) -> Workspace:
        """The workspace in `folder`, created where there is none. One that was moved or copied goes on where it is.

        `artifacts` is the pipeline's artifact root, which RLHF_ARTIFACTS overrides; where neither is given it is the
        one that was used last. Raises WorkspaceError where the
        folder cannot be written or belongs to another version of the layout.
        """
        folder = folder.absolute()
        marker = folder / "workspace.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_atomically(marker, json.dumps({"format": FORMAT, "folder": str(folder)}))
        except OSError as error:
            raise WorkspaceError(
                f"the workspace cannot be written: {error.strerror}.",
                where=str(folder),
                remedy="Choose another folder with --workspace or RLHF_WORKSPACE.",
            ) from error
        try:
            said = json.loads(marker.read_text())
            found = said["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError("workspace.json is not readable.", where=str(marker)) from error
        if found != FORMAT:
            raise WorkspaceError(
                f"the workspace has layout version {found}; this program reads version {FORMAT}.",
                where=str(folder),
                remedy="Use the version of the program that wrote it, or another --workspace.",
            )
        root = os.environ.get("RLHF_ARTIFACTS") or artifacts or str(said.get("artifacts", ""))
        _follow(folder, marker, said, root)
        return cls(folder, root)

    def open_artifacts(self) -> ArtifactStore:
        """The artifact store, with the part of it that is kept on this machine."""
        from rlhf_flows.artifact_store import ArtifactStore

        root, scratch = self.artifacts_root or str(self.artifacts), self.folder / "scratch"
        bound = os.environ.get("RLHF_CACHE_BYTES")
        try:
            return ArtifactStore(root, scratch, int(bound)) if bound else ArtifactStore(root, scratch)
        except ValueError as error:
            raise WorkspaceError(f"RLHF_CACHE_BYTES should be a number of bytes: {bound}.") from error

    def lock_name(self, pipeline: str) -> str:
        """The name of the lock that keeps two runs of a pipeline apart which share a store and an artifact root."""
        return f"{pipeline} {self.open_artifacts().url('')}"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the feedback store (RLHF_STORE_URL, e.g. a PostgreSQL one)."""
        return os.environ.get("RLHF_STORE_URL") or f"sqlite:///{self.folder / 'feedback.db'}"

    @property
    def mlflow_uri(self) -> str | None:
        """MLflow tracking server (RLHF_MLFLOW_URI); None for the workspace's own database."""
        return os.environ.get("RLHF_MLFLOW_URI")

    @property
    def mlflow_store(self) -> str:
        """The MLflow store: the server, or the workspace's own database."""
        return self.mlflow_uri or f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> str | None:
        """Where MLflow's own artifacts lie, beside those of the stages; None for the tracker's own choice."""
        return f"{self.artifacts_root.rstrip('/')}/mlflow" if "://" in self.artifacts_root else None

    @property
    def artifacts(self) -> Path:
        """Content-addressed results of stages, where no other root is set."""
        return self.folder / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of stages under way."""
        return self.folder / "checkpoints"

    @property
    def prefect(self) -> Path:
        """Prefect's home: its database, stored results and server log."""
        return self.folder / "prefect"

    @contextmanager
    def held(self, purpose: str) -> Iterator[None]:
        """Hold the workspace for one run. Raises Busy, naming the holder, where another process has it."""
        from filelock import FileLock, Timeout

        note = self.folder / "run.json"
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise Busy(
                f"another run holds this workspace: {_describe(note)}.",
                where=str(self.folder),
                remedy="Wait for it, stop it with Ctrl-C where it runs, or use another --workspace.",
            ) from error
        try:
            write_atomically(note, json.dumps({**holder(), "pid": os.getpid(), "purpose": purpose}))
            yield
        finally:
            lock.release()


def _follow(folder: Path, marker: Path, said: dict[str, object], artifacts: str) -> None:
    """Note where the workspace lies, and its artifact root for commands that know no pipeline. Where it was moved or
    copied, let MLflow's database point to where it lies now.
    """
    now = {**said, "folder": str(folder), "artifacts": artifacts}
    if now == said:
        return
    before = said.get("folder")
    if before not in (None, str(folder)) and (folder / "mlflow.db").exists():
        from rlhf_core.tracking.relocate import relocate

        relocate(folder / "mlflow.db", Path(str(before)), folder)
    write_atomically(marker, json.dumps(now))


def holder() -> dict[str, str]:
    """Who this process is, for whoever finds something held by it."""
    return {
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe(note: Path) -> str:
    try:
        said = json.loads(note.read_text())
        return f"`{said['command']}` (process {said['pid']} on {said['host']}, since {said['since']})"
    except (OSError, ValueError, KeyError):
        return "a process that has not said who it is"


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` in one step, so that a reader or a kill never meets half of it."""
    with replaced(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RlhfError(
            "the disk is full. Nothing that was accepted is lost: feedback and finished stages are complete.",
            where=str(folder),
            remedy="Free some space and run the same command; it goes on from the last checkpoint.",
        ) from error
