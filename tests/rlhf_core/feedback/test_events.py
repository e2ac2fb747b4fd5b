import threading

import pytest
from pydantic import ValidationError

from rlhf_core.errors import DataError
from rlhf_core.feedback.events import Event, EventLog
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Prompt, Question, Sample


def question(name="p", texts="ab"):
    prompt = Prompt(text=name)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts))


ASKED = question()
A, B = (sample.id for sample in ASKED.samples)


def impression(id, sample=A, position=0, **more):
    return Event(id=id, action="impression", question=ASKED.id, sample=sample, position=position, **more)


def react(id, impression, action="click", **more):
    return Event(id=id, action=action, impression=impression, **more)


@pytest.fixture
def log(either_url):
    with FeedbackStore(either_url) as store:
        log = EventLog(store)
        log.offer([ASKED])
        yield log


def counted(log):
    return {(each.channel, each.sample_id, each.position, each.action): each.number for each in log.counts()}


def test_reactions_count_the_impressions_that_had_one(log):
    log.append("site", [react("c0", "i1")])  # before its impression
    assert counted(log) == {}
    log.append("site", [impression("i1"), impression("i2"), impression("i3", B, 2)])
    log.append("site", [react("c1", "i1"), react("c2", "i3"), react("l1", "i3", "like"), react("c3", "nowhere")])
    log.append("app", [impression("i1", B), react("c1", "i1")])  # another channel's ids are its own
    assert counted(log) == {
        ("site", A, 0, "impression"): 2,
        ("site", A, 0, "click"): 1,
        ("site", B, 2, "impression"): 1,
        ("site", B, 2, "click"): 1,
        ("site", B, 2, "like"): 1,
        ("app", B, 0, "impression"): 1,
        ("app", B, 0, "click"): 1,
    }


def test_what_is_sent_again_changes_nothing(log):
    first = [impression("i1"), react("c1", "i1")]
    assert log.append("site", first) == (2, 0)
    assert log.append("site", [*first, impression("i2"), impression("i2")]) == (1, 3)
    assert log.append("site", [impression("i1", B)]) == (0, 1)
    assert counted(log) == {("site", A, 0, "impression"): 2, ("site", A, 0, "click"): 1}
    assert log.append("site", []) == (0, 0)


def test_one_bad_event_takes_all_of_its_request_along(log):
    for bad, what in (
        (Event(id="x", action="impression", question="q", sample=A), "never offered"),
        (impression("x", "s"), "has no such sample"),
    ):
        with pytest.raises(DataError, match=f"event 'x': .*{what}"):
            log.append("site", [impression("i1"), bad])
    assert counted(log) == {}


def test_a_time_without_a_zone_is_in_utc(log):
    log.append("site", [impression("i1", at="2026-01-02T03:04:05"), impression("i2", at="2026-01-02T01:04:05+01:00")])
    (counted,) = log.counts()
    assert counted.last.isoformat() == "2026-01-02T03:04:05+00:00"


def test_edits_know_what_they_were_made_from(log):
    stray = react("e2", "i9", "edit", text="?")
    log.append("site", [impression("i1", B), react("e1", "i1", "edit", text="better"), stray])
    (edit,) = log.edits()
    assert (edit.channel, edit.question_id, edit.sample_id, edit.text) == ("site", ASKED.id, B, "better")


def test_offers_are_handed_out_until_they_are_closed(log):
    others = [question(f"p{number}") for number in range(4)]
    log.offer(others)
    log.offer([ASKED, *others])
    first = log.offered(limit=2)
    assert [each.id for _, each in first] == [ASKED.id, others[0].id]
    rest = log.offered(after=first[-1][0])
    assert [each.id for _, each in rest] == [each.id for each in others[1:]]
    log.close([ASKED.id, others[2].id])
    log.offer([ASKED])
    assert [each.id for _, each in log.offered()] == [others[0].id, others[1].id, others[3].id]
    assert log.append("site", [impression("late")]) == (1, 0)


def test_several_writers_lose_nothing(log):
    """And what several of them send is counted once."""

    def send(number):
        for step in range(10):
            log.append("site", [impression(f"{number} {step}"), impression(f"shared {step}")])

    writers = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert counted(log) == {("site", A, 0, "impression"): 50}


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "", "action": "click", "impression": "i"},
        {"id": "x" * 201, "action": "click", "impression": "i"},
        {"id": "x", "action": "purchase", "impression": "i"},
        {"id": "x", "action": "impression", "question": "q"},
        {"id": "x", "action": "impression", "question": "q", "sample": "s", "impression": "i"},
        {"id": "x", "action": "click"},
        {"id": "x", "action": "click", "impression": "i", "question": "q", "sample": "s"},
        {"id": "x", "action": "edit", "impression": "i"},
        {"id": "x", "action": "edit", "impression": "i", "text": " "},
        {"id": "x", "action": "like", "impression": "i", "text": "t"},
        {"id": "x", "action": "edit", "impression": "i", "text": "\0"},
        {"id": "x", "action": "edit", "impression": "i", "text": "x" * 50_001},
        {"id": "x", "action": "impression", "question": "q", "sample": "s", "position": -1},
        {"id": "x", "action": "click", "impression": "i", "user": "me"},
        {"id": "x", "action": "click", "impression": "i", "at": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_events_that_are_none(fields):
    with pytest.raises(ValidationError):
        Event(**fields)
