import os
import signal
import subprocess
import sys

import pytest

from prefect_api import Api, free_port, until


@pytest.fixture
def prefect_server(tmp_path):
    """A Prefect server of its own, with nothing in it."""
    port = free_port()
    environment = {
        **os.environ, "PREFECT_HOME": str(tmp_path / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1", "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    api = Api(environment["PREFECT_API_URL"])
    try:
        until(api.alive, 180, lambda: (tmp_path / "server.log").read_text())
        yield api
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
