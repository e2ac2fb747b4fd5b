"""When a served campaign goes on; the answers come from other processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from databases import either_url, postgres  # noqa: F401
from rlhf_core.feedback.events import EventLog
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Prompt, Question, Sample
from rlhf_core.records.files import write_records
from rlhf_flows import trigger as trigger_module
from rlhf_flows.display import Silent
from rlhf_flows.session import Session
from rlhf_flows.trigger import Trigger
from rlhf_flows.waits import Wait, wait_path

ASKED = Path(__file__).with_name("asked.yaml")
QUESTIONS = 10

SOMEBODY_ELSE = """
import json, sys
from rlhf_core.feedback.events import Event, EventLog
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Question

how, url, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
questions = [Question.model_validate(each) for each in json.load(sys.stdin)]
with FeedbackStore.open(url) as store:
    if how == "server":
        queue = QuestionQueue(store)
        for _ in range(number):
            held = queue.next("ann")
            queue.answer("ann", held.form.id, held.question.id, [held.question.compare((1, 0))])
    elif how == "importer":
        given = [each.compare((0, 1), annotator="imported", source="person") for each in questions[:number]]
        store.add(Answer(question=q, feedback=f) for q, f in zip(questions, given))
    else:
        seen = [Event(id=f"{q.id} {s.id} {n}", action="impression", question=q.id, sample=s.id)
                for q in questions[:number] for s in q.samples for n in range(2)]
        clicks = [Event(id=f"click {e.id}", action="click", impression=e.id) for e in seen[::3]]
        EventLog(store).append("site", seen + clicks)
"""


def questions(n=QUESTIONS, of="p"):
    prompts = [Prompt(text=f"{of}{number}") for number in range(n)]
    return [Question(prompt=p, samples=tuple(Sample(prompt_id=p.id, text=t) for t in "ab")) for p in prompts]


def another_process(how, url, asked, number):
    text = json.dumps([each.model_dump(mode="json") for each in asked])
    command = [sys.executable, "-c", SOMEBODY_ELSE, how, url, str(number)]
    subprocess.run(command, input=text, text=True, check=True, timeout=120)


class Served:
    """A campaign that waits for people, and how its trigger is looked at."""

    def __init__(self, folder, url, asked, *overrides):
        self.session = Session.open(ASKED, overrides, folder, Silent())
        self.url, self.asked, self.learnt = url, asked, 0
        self.session.learnt_upto = lambda: self.learnt
        self.store = FeedbackStore.open(url)
        self.store.register_questions(self.session.pipeline.pipeline, [each.id for each in asked])
        self.wait()

    def wait(self):
        """As a run does that has to wait."""
        artifacts = self.session.artifacts
        with artifacts.draft("asked") as draft:
            write_records(draft / "questions.jsonl", self.asked)
            ref = artifacts.publish("questions", draft)
        path = wait_path(self.session.workspace.folder, self.session.pipeline.pipeline)
        path.unlink(missing_ok=True)
        path.write_text(Wait(round=1, questions=ref, annotators=(0,)).model_dump_json())

    def trigger(self, answers=None):
        return Trigger(self.session, self.store, answers)


@pytest.fixture
def served(request, tmp_path, monkeypatch):
    """Makes campaigns that wait; on both databases where the test asks for `either_url`."""
    both = "either_url" in request.fixturenames
    url = request.getfixturevalue("either_url") if both else f"sqlite:///{tmp_path}/feedback.db"
    monkeypatch.setenv("RLHF_STORE_URL", url)
    opened = []

    def serve(*overrides, asked=None, folder=tmp_path):
        opened.append(Served(folder, url, asked or questions(), *overrides))
        return opened[-1]

    yield serve
    for each in opened:
        each.store.close()


def test_answers_of_other_programs_are_seen_once_and_a_restart_changes_nothing(served, either_url):  # noqa: F811
    one = served()
    QuestionQueue(one.store).post(Form(), one.asked, campaign="asked")
    every_four, only_all = one.trigger(4), one.trigger()
    assert every_four.look() is None
    another_process("server", one.url, one.asked, 3)
    assert every_four.look() is None
    another_process("importer", one.url, one.asked, 1)
    assert every_four.look() == "now"
    assert one.trigger(4).look() == "now"  # started anew before it went on: not forgotten
    every_four.started()
    assert every_four.look() is None  # the same four are no second reason
    one.learnt = one.store.watermark()
    assert every_four.look() is None and one.trigger(4).look() is None  # nor are they after a restart
    assert only_all.look() is None
    another_process("importer", one.url, one.asked, QUESTIONS)
    assert (every_four.look(), only_all.look()) == ("when answered", "when answered")
    every_four.started()
    assert every_four.look() is None
    every_four.turned_away()  # by a run that the clock began
    assert every_four.look() == "when answered"
    every_four.started()
    one.wait()  # the run took an answer back, and waits again
    another_process("importer", one.url, one.asked, QUESTIONS)
    assert every_four.look() == "when answered"


def test_a_failed_run_is_tried_again_after_as_many_further_answers(served):
    one = served("ask.overlap=2", asked=[each.model_copy(update={"wanted": 2}) for each in questions()])
    found = one.trigger(3)
    another_process("importer", one.url, one.asked, 4)
    assert found.look() == "now"
    found.started()
    QuestionQueue(one.store).post(Form(), one.asked, campaign="asked")
    another_process("server", one.url, one.asked, 2)
    assert found.look() is None
    another_process("server", one.url, one.asked, 1)
    assert found.look() == "now"


def test_pipelines_in_one_store_go_on_by_themselves(served, tmp_path):
    one = served()
    other = served("pipeline=other", asked=questions(of="q"), folder=tmp_path / "elsewhere")
    another_process("importer", one.url, one.asked, 2)
    assert (one.trigger(2).look(), other.trigger(1).look()) == ("now", None)
    another_process("importer", one.url, other.asked, QUESTIONS)
    assert (one.trigger(3).look(), other.trigger().look()) == (None, "when answered")


def test_a_deadline_that_passes_is_a_reason_without_new_answers(served, monkeypatch):
    monkeypatch.setattr(trigger_module, "OUTSIDE_SECONDS", 0)
    one = served("ask.annotators.0.deadline_hours=0.000001")
    patient = served()
    another_process("importer", one.url, one.asked, 1)
    one.learnt = one.store.watermark()
    found, waits = one.trigger(), patient.trigger()
    assert found.look() is None  # nobody was asked yet
    form = one.session.registry.create("annotators", one.session.pipeline.ask.annotators[0]).form
    QuestionQueue(one.store).post(form, one.asked, campaign="asked")
    assert (found.look(), waits.look()) == ("when answered", None)


def test_a_share_of_the_answers_can_be_enough(served):
    half, all_ = served("ask.annotators.0.enough=0.5"), served()
    another_process("importer", half.url, half.asked, 5)
    assert (half.trigger().look(), all_.trigger().look()) == ("when answered", None)


def test_reported_events_are_seen_although_nobody_made_answers_of_them_yet(served, monkeypatch):
    monkeypatch.setattr(trigger_module, "OUTSIDE_SECONDS", 0)
    one = served("ask.annotators=[{use: reactions, min_exposures: 2}]", "ask.convert=[{use: clicks_to_comparisons}]")
    EventLog(one.store).offer(one.asked)
    each, every_eight = one.trigger(), one.trigger(8)
    another_process("product", one.url, one.asked, 4)
    assert (each.look(), every_eight.look(), one.trigger(4).look()) == (None, None, "now")
    another_process("product", one.url, one.asked, QUESTIONS)
    assert (each.look(), every_eight.look()) == ("when answered", "when answered")
    assert one.store.watermark() == 0  # looking has stored nothing
