"""`rlhf serve`: when it goes on, and that it does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_core.errors import WorkspaceError
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows import serving
from rlhf_flows.display import Silent
from rlhf_flows.served import steps
from rlhf_flows.server import PrivateServer
from rlhf_flows.serving import Watcher, serve_pipeline
from rlhf_flows.session import Session
from rlhf_flows.stages.artifacts_io import read_questions
from rlhf_flows.waits import Wait, wait_path
from rlhf_flows.workspace import Workspace

ASKED = Path(__file__).with_name("asked.yaml")


def answer_all(url, limit=1000):
    with FeedbackStore.open(url) as store:
        queue = QuestionQueue(store)
        for done in range(limit):
            if (held := queue.next("ann")) is None:
                return done
            queue.answer("ann", held.form.id, held.question.id, [held.question.compare((1, 0))])
        return limit


def test_a_pipeline_is_served_once(tmp_path):
    from filelock import FileLock

    session = Session.open(ASKED, (), tmp_path, Silent())
    with FileLock(tmp_path / "serve-asked.lock"), pytest.raises(WorkspaceError, match="serves asked already"):
        serve_pipeline(session, ASKED, (), cron=None, answers=None, say=print)


def test_what_a_run_does():
    assert steps("not", complete=False, asks=True) == ["run", "collect"]
    assert steps("when answered", complete=False, asks=True) == ["run", "collect"]
    assert steps("now", complete=False, asks=True) == ["retrain", "run", "collect"]
    assert steps("not", complete=True, asks=True) == ["collect"]  # a restart learns nothing twice
    assert steps("when answered", complete=True, asks=True) == steps("now", complete=True, asks=True)
    assert steps("now", complete=True, asks=True) == ["retrain", "collect"]
    assert steps("when answered", complete=True, asks=False) == ["retrain"]


class Reasons:
    """A trigger whose findings the test says."""

    def __init__(self):
        self.found, self.calls = None, []

    def look(self):
        return self.found

    def started(self):
        self.calls.append("started")
        self.found = None


class Watching(Watcher):
    """A watcher whose orchestrator is the test."""

    def __init__(self, trigger):
        super().__init__({"name": "asked"}, trigger, lambda said: None)
        self.busy, self.runs = False, []

    def _is_under_way(self, deployment_id):
        return self.busy

    def _start(self, deployment_id, learn):
        self.runs.append(learn)


def test_a_reason_stands_while_a_run_is_under_way_or_the_deployment_is_paused(monkeypatch):
    deployment = SimpleNamespace(id=1, paused=False)
    monkeypatch.setattr(serving, "_deployed", lambda name: deployment)
    watcher = Watching(reasons := Reasons())
    watcher.look()
    watcher.look()
    assert watcher.runs == ["not"]  # at once, so that a campaign begins; then only with a reason
    reasons.found, watcher.busy = "now", True
    watcher.look()
    watcher.busy, deployment.paused = False, True
    watcher.look()
    assert watcher.runs == ["not"]
    deployment.paused = False
    watcher.look()
    watcher.look()
    assert watcher.runs == ["not", "now"] and reasons.calls == ["started", "started"]


@pytest.mark.slow
def test_what_is_paused_stays_paused_when_it_is_served_anew(tmp_path):
    """On a Prefect server of its own, whose word about a pause the watcher goes by."""
    session = Session.open(ASKED, (), tmp_path, Silent())
    parameters = {"name": "asked", "pipeline": str(ASKED), "workspace": str(tmp_path), "overrides": []}
    with PrivateServer(session.workspace) as server, server.answering():
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import DeploymentUpdate

        assert serving._deployed("asked") is None
        serving._deployment("asked", parameters, "0 3 * * *", paused=False).apply()
        found = serving._deployed("asked")
        assert not found.paused
        watcher = Watcher(parameters, reasons := Reasons(), lambda said: None)
        reasons.found = "now"
        with get_client(sync_client=True) as client:
            client.update_deployment(found.id, DeploymentUpdate(paused=True))
            serving._deployment("asked", parameters, "0 3 * * *", paused=serving._deployed("asked").paused).apply()
            assert serving._deployed("asked").paused
            watcher.look()
            assert reasons.calls == []
            client.update_deployment(found.id, DeploymentUpdate(paused=False))
            watcher.look()
            assert reasons.calls == ["started"]
            (run,) = [run for run in client.read_flow_runs() if not run.auto_scheduled]
            assert run.parameters == {**parameters, "learn": "now"}
            reasons.found = "now"
            watcher.look()  # that run has not ended
            assert reasons.calls == ["started"]


IMPORTER = """
import sys
from pathlib import Path
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer
from rlhf_flows.stages.artifacts_io import read_questions

url, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with FeedbackStore.open(url) as store:
    for question in read_questions(folder)[:number]:
        said = question.compare((0, 1), annotator="imported", source="person")
        store.add([Answer(question=question.blind(), feedback=said)], campaign="elsewhere")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_served_campaign_asks_waits_survives_kills_and_learns_what_others_stored(tmp_path):
    """It waits, is killed while it does, goes on when people have answered, asks about the result, learns from answers
    that another program imported, and a further restart repeats nothing.
    """
    workspace = Workspace.open(tmp_path)
    command = [
        str(Path(sys.executable).with_name("rlhf")), "serve", str(ASKED), "--workspace", str(tmp_path), "--answers", "5"
    ]  # fmt: skip

    def log():
        return (tmp_path / "log").read_text()

    def start():
        with (tmp_path / "log").open("ab") as file:
            return subprocess.Popen(
                command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def until(found, process):
        deadline = time.monotonic() + 300
        while not found():
            assert process.poll() is None and time.monotonic() < deadline, log()
            time.sleep(0.5)

    def rounds():
        found = (workspace.artifacts / "campaigns").glob("asked-*.json")
        return [json.loads(path.read_text())["rounds"] for path in found]

    def waiting_in():
        path = wait_path(workspace.folder, "asked")
        return Wait.model_validate_json(path.read_text()).round if path.exists() else None

    def kill(process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    process = start()
    try:
        until(lambda: waiting_in() == 1, process)
        kill(process)
        assert answer_all(workspace.store_url) == 12
        process = start()
        until(lambda: rounds() == [2] and waiting_in() == 2, process)
        wait = Wait.model_validate_json(wait_path(workspace.folder, "asked").read_text())
        folder = workspace.artifacts / wait.questions.uri
        assert len(read_questions(folder)) == 12
        subprocess.run([sys.executable, "-c", IMPORTER, workspace.store_url, str(folder), "4"], check=True)
        time.sleep(15)
        assert waiting_in() == 2 and rounds() == [2]  # four are not five
        subprocess.run([sys.executable, "-c", IMPORTER, workspace.store_url, str(folder), "6"], check=True)
        until(lambda: rounds() == [3] and waiting_in() == 3, process)
        kill(process)
        before = log().count("people have answered: going on")
        since = wait_path(workspace.folder, "asked").stat().st_mtime_ns
        process = start()
        until(lambda: waiting_in() == 3 and wait_path(workspace.folder, "asked").stat().st_mtime_ns > since, process)
        time.sleep(15)
        assert rounds() == [3] and log().count("people have answered: going on") == before
        assert "Traceback" not in log()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
