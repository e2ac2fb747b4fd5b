"""A campaign that waits for people: it stops, people answer through the server, and the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

RLHF = str(Path(sys.executable).with_name("rlhf"))
ASKED = Path(__file__).with_name("asked.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def rlhf(*arguments, workspace, **options):
    command = [RLHF, *map(str, arguments), "--workspace", str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, **options)


class Server:
    """`rlhf annotate` in a process of its own."""

    def __init__(self, workspace, port):
        command = [RLHF, "annotate", "--port", str(port), "--workspace", str(workspace)]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        deadline = time.monotonic() + 60
        while True:
            try:
                page = self.client.get("/").text
                break
            except httpx.TransportError:
                assert self.process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        self.client.headers["x-rlhf-csrf"] = re.search('name="csrf" content="(.*?)"', page)[1]

    def answer(self, n):
        """Answer `n` questions, or as many as there are; how many."""
        for done in range(n):
            item = self.client.get("/api/next").json()["item"]
            if item is None:
                return done
            place = {"form": item["form"], "question": item["question"]}
            choice = "first" if len(item["samples"][0]["text"]) < len(item["samples"][1]["text"]) else "second"
            said = self.client.post("/api/answer", json={**place, "given": {"view": "pair", "choice": choice}})
            assert said.json()["accepted"]
            time.sleep(0.2)  # within the rate limit
        return n

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.client.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_waits_without_running_survives_kills_and_goes_on(tmp_path, unused_tcp_port):
    first = rlhf("run", ASKED, workspace=tmp_path)
    assert first.returncode == 3, first.stderr
    assert "waiting for 12 answers from `people`" in first.stderr
    assert "Traceback" not in first.stderr and "ERROR" not in first.stderr
    server = Server(tmp_path, unused_tcp_port)
    assert server.answer(5) == 5
    server.kill()
    again = subprocess.Popen(
        [RLHF, "run", str(ASKED), "--workspace", str(tmp_path)], env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    time.sleep(4)
    again.send_signal(signal.SIGKILL)
    again.wait(10)
    second = rlhf("resume", workspace=tmp_path)
    assert second.returncode == 3
    assert "waiting for 7 answers" in second.stderr
    server = Server(tmp_path, unused_tcp_port)
    assert server.answer(20) == 7
    server.kill()
    third = rlhf("run", ASKED, "--json", workspace=tmp_path)
    assert third.returncode == 0, third.stderr
    (warm_start, done) = json.loads(third.stdout.splitlines()[-1])["rounds"]
    assert warm_start["policy"] != done["policy"]
    lineage = json.loads(rlhf("lineage", "asked-policy/2", "--json", workspace=tmp_path).stdout)
    (snapshot,) = lineage["snapshots"].values()
    assert snapshot["by_source"] == {"person": 12}
    status = mlflow_statuses(tmp_path)
    assert set(status.values()) == {"FINISHED"}


def mlflow_statuses(workspace):
    import sqlite3

    with sqlite3.connect(workspace / "mlflow.db") as database:
        return dict(database.execute("SELECT name, status FROM runs"))


@pytest.fixture
def unused_tcp_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
