import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from rlhf_core.plugins import EVENTS, Event, Step
from rlhf_core.run import Run
from rlhf_plugins.steps import notify
from rlhf_plugins.steps.notify import Notify

SECRET = "T024BE7LD/xoxb-5ecret"


class Hook:
    """A webhook that answers with the given statuses in turn, and with 200 after them."""

    def __init__(self, *statuses):
        self.statuses, self.got = list(statuses), []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                status = hook.statuses.pop(0) if hook.statuses else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook():
    hooks = []

    def make(*statuses):
        hooks.append(Hook(*statuses))
        return hooks[-1]

    yield make
    for each in hooks:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(notify.time, "sleep", slept.append)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return slept


class Noted(Run):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def event(name="promoted", text="win rate 0.61 > 0.5 & <rising>"):
    data = {"reasons": ["promoted: win rate 0.61"], "version": 3}
    return Event(name, "newsroom", 2, text, key=f"newsroom/2/{name}", data=data)


def told(url, *events, **options):
    run = Noted()
    step = Notify(url=url, run=run, **options)
    for each in events:
        step.hear(each)
    return run.notes


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Notify, url="https://hooks.example.com/x")
    assert not Notify.runs()
    assert Notify.hear is not Step.hear


def test_an_event_as_json(hook):
    server = hook()
    assert told(server.url, event()) == []
    ((path, kind, message),) = server.got
    assert path == f"/services/{SECRET}"
    assert kind == "application/json; charset=utf-8"
    assert message == {
        "event": "promoted", "pipeline": "newsroom", "round": 2, "text": "win rate 0.61 > 0.5 & <rising>",
        "key": "newsroom/2/promoted", "data": {"reasons": ["promoted: win rate 0.61"], "version": 3},
    }  # fmt: skip


def test_slack(hook):
    server = hook()
    told(server.url, event(), event("waiting", ""), format="slack")
    assert [message for _, _, message in server.got] == [
        {"text": "*newsroom*: the challenger was promoted (round 2)\nwin rate 0.61 &gt; 0.5 &amp; &lt;rising&gt;"},
        {"text": "*newsroom*: waits for people (round 2)"},
    ]


def test_only_the_events_that_were_asked_for(hook):
    server = hook()
    told(server.url, *(event(name) for name in EVENTS), events=["failed", "kept"])
    assert [message["event"] for _, _, message in server.got] == ["kept", "failed"]
    told(server.url, *(event(name) for name in EVENTS))
    assert [message["event"] for _, _, message in server.got[2:]] == list(EVENTS)


def test_a_busy_webhook_is_tried_again(hook, waits):
    server = hook(503, 429)
    assert told(server.url, event()) == []
    assert len(server.got) == 3
    assert waits == [1.0, 2.0]


def test_after_three_tries_it_is_noted_and_nothing_stops(hook, waits):
    server = hook(500, 500, 500)
    notes = told(server.url, event())
    assert notes == [
        "the webhook was not told that newsroom the challenger was promoted (round 2): it answered 500, in 3 tries"
    ]
    assert len(server.got) == 3


@pytest.mark.parametrize("status", [302, 404])
def test_what_will_not_change_is_tried_once(hook, waits, status):
    server = hook(status)
    (note,) = told(server.url, event())
    assert note.endswith(f"it answered {status}")
    assert (len(server.got), waits) == (1, [])


def test_nobody_listens(hook, waits):
    server = hook()
    server.server.shutdown()
    server.server.server_close()
    (note,) = told(server.url, event())
    assert note.endswith("it cannot be reached (ConnectionRefusedError), in 3 tries")
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("statuses", [(), (500, 500, 500), (404,), (302,)])
def test_the_address_is_never_repeated(hook, statuses, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    notes = told(hook(*statuses).url, event())
    said = "\n".join([*notes, caplog.text, *capfd.readouterr()])
    assert "5ecret" not in said
    assert "127.0.0.1" not in said


@pytest.mark.parametrize("url", ["http://bad host/5ecret", "http://[5ecret", "http://127.0.0.1:99999999/5ecret"])
def test_a_malformed_address_is_noted_without_it(url):
    (note,) = told(url, event())
    assert "cannot be reached" in note
    assert "5ecret" not in note


def test_the_address_from_the_environment(hook, monkeypatch):
    server = hook()
    monkeypatch.delenv("TEAM_WEBHOOK", raising=False)
    (note,) = told("${TEAM_WEBHOOK}", event())
    assert note.endswith("the environment variable TEAM_WEBHOOK is not set")
    monkeypatch.setenv("TEAM_WEBHOOK", server.url)
    assert told("${TEAM_WEBHOOK}", event()) == []
    monkeypatch.setenv("TOKEN", SECRET)
    assert told(server.url.replace(SECRET, "${TOKEN}"), event()) == []
    assert [path for path, _, _ in server.got] == [f"/services/{SECRET}"] * 2


def test_an_address_that_is_none():
    with pytest.raises(ValidationError, match="should begin with http"):
        Notify.Config(url="hooks.example.com/x")
    with pytest.raises(ValidationError, match="promotd"):
        Notify.Config(url="http://a", events=["promotd"])
