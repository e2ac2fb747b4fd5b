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

from rlhf_core.errors import Busy, RlhfError, WorkspaceError
from rlhf_core.files import replaced

FORMAT = 1
"""Version of the workspace layout; another version is refused, never half understood."""


@dataclass(frozen=True)
class Workspace:
    """Paths and settings of one workspace. Servers instead of files are settings: see the properties' variables."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Workspace:
        """The workspace in `folder`, created where there is none.

        Raises WorkspaceError where the folder cannot be written or belongs to another version of the layout.
        """
        folder = folder.absolute()
        marker = folder / "workspace.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_atomically(marker, json.dumps({"format": FORMAT}))
        except OSError as error:
            raise WorkspaceError(
                f"the workspace cannot be written: {error.strerror}.",
                where=str(folder),
                remedy="Choose another folder with --workspace or RLHF_WORKSPACE.",
            ) from error
        try:
            found = json.loads(marker.read_text())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError("workspace.json is not readable.", where=str(marker)) from error
        if found != FORMAT:
            raise WorkspaceError(
                f"the workspace has layout version {found}; this program reads version {FORMAT}.",
                where=str(folder),
                remedy="Use the version of the program that wrote it, or another --workspace.",
            )
        return cls(folder)

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
    def artifacts(self) -> Path:
        """Content-addressed results of stages."""
        return self.folder / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of stages under way."""
        return self.folder / "checkpoints"

    @property
    def prefect(self) -> Path:
        """Prefect's home: its database, stored results and server log."""
        return self.folder / "prefect"

    @property
    def campaigns(self) -> Path:
        """A summary of each campaign, for `rlhf compare`."""
        return self.folder / "campaigns"

    @contextmanager
    def held(self, purpose: str) -> Iterator[None]:
        """Hold the workspace for one run. Raises Busy, naming the holder, where another process has it."""
        from filelock import FileLock, Timeout

        holder = self.folder / "run.json"
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise Busy(
                f"another run holds this workspace: {_describe(holder)}.",
                where=str(self.folder),
                remedy="Wait for it, stop it with Ctrl-C where it runs, or use another --workspace.",
            ) from error
        try:
            write_atomically(
                holder,
                json.dumps(
                    {
                        "pid": os.getpid(),
                        "host": socket.gethostname(),
                        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                        "purpose": purpose,
                        "since": datetime.now(UTC).isoformat(timespec="seconds"),
                    }
                ),
            )
            yield
        finally:
            lock.release()


def _describe(holder: Path) -> str:
    try:
        said = json.loads(holder.read_text())
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
