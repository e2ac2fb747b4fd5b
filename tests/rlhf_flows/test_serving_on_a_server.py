"""`rlhf serve` on a Prefect server of its own: its schedule fires, and what is killed does not run for ever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_api import until
from rlhf_flows.orphaned_runs import AUTOMATION

ASKED = Path(__file__).with_name("asked.yaml")
RLHF = str(Path(sys.executable).with_name("rlhf"))


def states(runs):
    return [run["state"]["name"] for run in runs]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_schedule_fires_and_killed_runs_end(prefect_server, tmp_path):
    workspace, log_file = tmp_path / "workspace", tmp_path / "serve.log"
    environment = {**os.environ, "PREFECT_API_URL": prefect_server.url, "OMP_NUM_THREADS": "1"}
    command = [RLHF, "serve", str(ASKED), "--workspace", str(workspace), "--cron", "* * * * *", "--set",
               "data.0.demonstrations=400"]  # fmt: skip

    def start():
        with log_file.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def by_the_clock():
        found = prefect_server.runs("retrain-on-feedback")
        return [run for run in found if run["auto_scheduled"] and run["state"]["name"] == "Waiting"]

    process = start()
    try:
        until(
            lambda: "loop" in str(prefect_server.runs("loop")) and "Running" in states(prefect_server.runs("loop")),
            240,
            log_file.read_text,
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        killed = [
            run["id"] for run in prefect_server.runs("loop", "retrain-on-feedback") if run["state"]["name"] == "Running"
        ]
        assert len(killed) >= 2  # Prefect's books know nothing of the kill
        process = start()
        ended = {"Crashed"}
        until(
            lambda: ended == {run["state"]["name"] for run in prefect_server.runs("loop", "retrain-on-feedback")
                              if run["id"] in killed}, 240, log_file.read_text,
        )  # fmt: skip
        until(by_the_clock, 400, log_file.read_text)
        assert "waiting for 12 answers" in log_file.read_text()
        assert [each["name"] for each in prefect_server.post("automations/filter")] == [AUTOMATION]
        running = [run for run in prefect_server.runs("retrain-on-feedback") if run["state"]["name"] == "Running"]
        assert len(running) <= 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
