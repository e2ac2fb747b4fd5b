"""A Prefect API for a run: the configured one, or a private server on the workspace that ends with the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rlhf_core.errors import RlhfError
from rlhf_flows.workspace import Workspace

START_LIMIT = 120.0
"""Seconds until a private server that does not answer is given up."""


def configure(workspace: Workspace) -> None:
    """Point Prefect at the workspace. Call before Prefect is imported."""
    storage = workspace.prefect / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "PREFECT_HOME": str(workspace.prefect),
        "PREFECT_LOCAL_STORAGE_PATH": str(storage),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # What runs say is in Prefect's interface; on the terminal there are our lines, and one paragraph for an error.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_WRAP_LINES": "false",
    }.items():
        os.environ.setdefault(name, value)


class PrivateServer:
    """A Prefect server for this process alone, on localhost; starts at once and is waited for when it is needed.

    It is a process of its own, so that it starts while torch and MLflow are imported here, and it ends when this
    process ends, however that happens.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.process: subprocess.Popen[bytes] | None = None
        self.fresh = False
        """Whether it starts with an empty database, in which no earlier run can be."""

    def __enter__(self) -> PrivateServer:
        configure(self.workspace)
        if os.environ.get("PREFECT_API_URL"):
            return self
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.fresh = not (self.workspace.prefect / "prefect.db").exists()
        log = (self.workspace.prefect / "server.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlhf_flows.server", str(port), str(os.getpid())],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Set from now on, so that Prefect may be imported, which reads it then, while the server is still starting.
        self.api = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        return self

    @property
    def private(self) -> bool:
        """Whether there is a server of this process's own, and not one that was configured."""
        return self.process is not None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Wait until the server answers; within, it is this process's API. Raises RlhfError where it does not.

        Nobody is there to miss a heartbeat of a run whose server ends with it, and ending one takes a second: without.
        """
        if self.process is None:
            _expect_configured()
            yield
            return
        self._wait()
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        try:
            with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                yield
        finally:
            _send_logs()

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT
        while True:
            try:
                with urllib.request.urlopen(f"{self.api}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RlhfError(
                        "the private Prefect server did not start.",
                        where=str(self.workspace.prefect / "server.log"),
                        remedy="Read the log named above; `rlhf doctor` checks the installed versions.",
                    ) from None
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        os.environ.pop("PREFECT_API_URL", None)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _send_logs() -> None:
    """Send what waits in this process while the server that it is for still answers."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


def _expect_configured() -> None:
    """Raise RlhfError where the configured API does not answer."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if (error := client.api_healthcheck()) is not None:
            raise RlhfError(
                f"the Prefect API does not answer: {error}",
                where=os.environ["PREFECT_API_URL"],
                remedy="Start it, correct PREFECT_API_URL, or unset PREFECT_API_URL to run on a private server.",
            )


def _serve(port: int, parent: int) -> None:
    """Run the API in this process until `parent` is gone."""
    import uvicorn

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="on",
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
