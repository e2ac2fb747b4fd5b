"""`rlhf serve` on a Prefect server of its own: its schedule fires, and what is killed does not run for ever."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from rlhf_flows.zombies import AUTOMATION

ASKED = Path(__file__).with_name("asked.yaml")
RLHF = str(Path(sys.executable).with_name("rlhf"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(found, seconds, what):
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(1)
    return result


class Api:
    """The server's HTTP interface."""

    def __init__(self, url):
        self.url = url

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def runs(self, *names):
        """The runs of these flows that have begun; those that are only scheduled are many."""
        begun = {"start_time": {"is_null_": False}}
        return self.post("flow_runs/filter", flows={"name": {"any_": list(names)}}, flow_runs=begun, limit=100)

    def alive(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10):
                return True
        except OSError:
            return False


def states(runs):
    return [run["state"]["name"] for run in runs]


@pytest.fixture
def server(tmp_path):
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_schedule_fires_and_killed_runs_end(server, tmp_path):
    workspace, log_file = tmp_path / "workspace", tmp_path / "serve.log"
    environment = {**os.environ, "PREFECT_API_URL": server.url, "OMP_NUM_THREADS": "1"}
    command = [RLHF, "serve", str(ASKED), "--workspace", str(workspace), "--cron", "* * * * *", "--set",
               "data.0.demonstrations=400"]  # fmt: skip

    def start():
        with log_file.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def by_the_clock():
        found = server.runs("retrain-on-feedback")
        return [run for run in found if run["auto_scheduled"] and run["state"]["name"] == "Waiting"]

    process = start()
    try:
        until(
            lambda: "loop" in str(server.runs("loop")) and "Running" in states(server.runs("loop")),
            240,
            log_file.read_text,
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        killed = [run["id"] for run in server.runs("loop", "retrain-on-feedback") if run["state"]["name"] == "Running"]
        assert len(killed) >= 2  # Prefect's books know nothing of the kill
        process = start()
        ended = {"Crashed"}
        until(
            lambda: ended == {run["state"]["name"] for run in server.runs("loop", "retrain-on-feedback")
                              if run["id"] in killed}, 240, log_file.read_text,
        )  # fmt: skip
        until(by_the_clock, 400, log_file.read_text)
        assert "waiting for 12 answers" in log_file.read_text()
        assert [each["name"] for each in server.post("automations/filter")] == [AUTOMATION]
        running = [run for run in server.runs("retrain-on-feedback") if run["state"]["name"] == "Running"]
        assert len(running) <= 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
