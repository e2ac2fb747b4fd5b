"""The routes for programs: what is offered to them, what is accepted from them."""

import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from mixed import hostile, question

from rlhf_core.feedback.events import EventLog
from rlhf_core.feedback.people import People
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.access import SESSION, Access, RateLimit
from rlhf_flows.annotation.app import make_app
from rlhf_flows.annotation.headers import BODY_LIMIT
from rlhf_flows.annotation.serving import LOCAL_NAMES


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(f"sqlite:///{tmp_path}/feedback.db") as opened:
        yield opened


@pytest.fixture
def app(store):
    return make_app(store, "guest", hosts=[*LOCAL_NAMES, "testserver"])


@pytest.fixture
def program(store, app):
    client = TestClient(app)
    client.headers["Authorization"] = f"Bearer {People(store).invite('site', 'app')}"
    return client


def impression(shown, number=0, **more):
    place = {"question": shown["question"], "sample": shown["samples"][number]["sample"]}
    return {"id": f"i{number}", "action": "impression", **place, **more}


def test_what_is_offered_can_be_reported_on(program, store):
    asked = question(0, 2)
    EventLog(store).offer([asked])
    reply = program.get("/api/events/questions").json()
    (shown,) = reply["questions"]
    assert [each["text"] for each in shown["samples"]] == [sample.text for sample in asked.samples]
    assert program.get("/api/events/questions", params={"after": reply["after"]}).json()["questions"] == []
    sent = {"events": [impression(shown, 0), impression(shown, 1, position=1), {
        "id": "c", "action": "click", "impression": "i1", "at": "2026-01-02T03:04:05Z",
    }]}  # fmt: skip
    assert program.post("/api/events", json=sent).json() == {"accepted": 3, "repeated": 0}
    assert program.post("/api/events", json=sent).json() == {"accepted": 0, "repeated": 3}
    found = {(each.sample_id, each.action): (each.number, each.channel) for each in EventLog(store).counts()}
    a, b = (sample.id for sample in asked.samples)
    assert found == {(a, "impression"): (1, "site"), (b, "impression"): (1, "site"), (b, "click"): (1, "site")}


def test_nothing_is_given_away_and_texts_stay_texts(program, store):
    bad = hostile()
    EventLog(store).offer([bad])
    reply = program.get("/api/events/questions")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    (shown,) = reply.json()["questions"]
    assert set(shown) == {"question", "prompt", "samples"}
    assert all(set(sample) == {"sample", "text"} for sample in shown["samples"])
    assert [sample["text"] for sample in shown["samples"]] == [sample.text for sample in bad.samples]


def test_only_programs_with_a_token(program, store, app):
    person = People(store).invite("ann")
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Bearer {person}"}, {"Authorization": "x"}):
        stranger = TestClient(app, headers=headers)
        assert stranger.get("/api/events/questions").status_code == 401
        assert stranger.post("/api/events", json={"events": []}).status_code == 401
    assert TestClient(app, cookies={SESSION: person}).post("/api/events", json={"events": []}).status_code == 401


def test_a_program_is_no_annotator(program, store, app):
    token = program.headers["Authorization"].removeprefix("Bearer ")
    assert TestClient(app).get(f"/join/{token}", follow_redirects=False).status_code == 401
    assert TestClient(app, cookies={SESSION: token}).get("/api/next").status_code == 401
    assert "site" not in TestClient(app).get("/lead").text


def test_guessing_and_flooding_are_slowed_down(store):
    slow = {"requests": None, "guesses": RateLimit(0.001, 2), "reports": RateLimit(0.001, 3)}
    access = Access(People(store), None, **slow)

    def asks(token):
        header = (b"authorization", f"Bearer {token}".encode())
        try:
            return access.program(Request({"type": "http", "headers": [header], "client": ("10.0.0.1", 1)})).name
        except HTTPException as error:
            return error.status_code

    token = access.people.invite("site", "app")
    assert [asks("guess") for _ in range(3)] == [401, 401, 429]
    assert [asks(token) for _ in range(4)] == ["site", "site", "site", 429]


@pytest.mark.parametrize(
    ("sent", "status", "what"),
    [
        ({"events": [{"id": "x", "action": "click"}]}, 422, "body.events.0"),
        ({"events": [{"id": "x", "action": "impression", "question": "q", "sample": "s"}]}, 422, "never offered"),
        ({"events": [{"id": str(n), "action": "click", "impression": "i"} for n in range(1001)]}, 422, "events"),
        ({"events": "all"}, 422, "body.events"),
        ({"event": []}, 422, "body"),
        ({"events": [], "padding": "x" * BODY_LIMIT}, 413, "too large"),
    ],
)
def test_bad_input_is_said_and_nothing_is_kept(program, store, sent, status, what):
    reply = program.post("/api/events", json=sent)
    assert reply.status_code == status
    assert what in reply.text
    assert EventLog(store).counts() == []


def test_a_paused_program_is_offered_nothing(program, store):
    EventLog(store).offer([question(0, 2)])
    People(store).pause("site")
    assert program.get("/api/events/questions").json()["questions"] == []
