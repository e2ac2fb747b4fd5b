"""`rlhf serve`: when it goes on, and that it does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_core.errors import WorkspaceError
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_flows.serving import Trigger, serve_pipeline
from rlhf_flows.workspace import Workspace

ASKED = Path(__file__).with_name("asked.yaml")


def questions(n):
    prompts = [Prompt(text=f"p{number}") for number in range(n)]
    return [Question(prompt=p, samples=tuple(Sample(prompt_id=p.id, text=t) for t in "ab")) for p in prompts]


def answer_all(url, limit=1000):
    with FeedbackStore.open(url) as store:
        queue = QuestionQueue(store)
        for done in range(limit):
            if (held := queue.next("ann")) is None:
                return done
            queue.answer("ann", held.form.id, held.question.id, [held.question.compare((1, 0))])
        return limit


def test_it_goes_on_after_so_many_answers_and_after_the_last_one(tmp_path):
    url, seen = f"sqlite:///{tmp_path}/feedback.db", tmp_path / "seen.json"
    with FeedbackStore.open(url) as store:
        QuestionQueue(store).post(Form(), questions(10))
        every_four, only_last = Trigger(store, seen, 4), Trigger(store, tmp_path / "other.json")
        due = []
        for _ in range(10):
            answer_all(url, 1)
            due.append((every_four.is_due(), only_last.is_due()))
        assert due == [(number in (4, 8, 10), number == 10) for number in range(1, 11)]
        assert not every_four.is_due()
        # Somebody else's answers are no reason to go on, and a server started anew counts on.
        simulated = questions(20)[19]
        store.add([Answer(question=simulated, feedback=simulated.compare((1, 0), source="simulated"))])
        assert not Trigger(store, seen, 1).is_due()


def test_a_pipeline_is_served_once(tmp_path):
    from filelock import FileLock

    workspace = Workspace.open(tmp_path)
    with FileLock(tmp_path / "serve-asked.lock"), pytest.raises(WorkspaceError, match="serves asked already"):
        serve_pipeline(workspace, ASKED, "asked", (), cron=None, answers=None, say=print)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_served_campaign_asks_waits_survives_a_kill_and_learns(tmp_path):
    workspace = Workspace.open(tmp_path)
    command = [str(Path(sys.executable).with_name("rlhf")), "serve", str(ASKED), "--workspace", str(tmp_path)]

    def start(log):
        return subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def until(found, process):
        deadline = time.monotonic() + 240
        while not found():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)

    def rounds():
        return [len(json.loads(path.read_text())["rounds"]) for path in workspace.campaigns.glob("asked-*.json")]

    with (tmp_path / "log").open("wb") as log:
        process = start(log)
        try:
            until(lambda: "waiting for 12 answers" in (tmp_path / "log").read_text(), process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            assert answer_all(workspace.store_url) == 12
            process = start(log)
            until(lambda: rounds() == [2], process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    assert "Traceback" not in (tmp_path / "log").read_text().split("waiting for 12")[0]
