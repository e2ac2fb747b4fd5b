"""The judge over HTTP, against a small server of the test that answers by a rule."""

import math
import time

import pytest

from judge_server import judge_server, reply_of, shorter
from rlhf_core import Prompt, RlhfError, Sample
from rlhf_plugins.judging.case import Case
from rlhf_plugins.judging.endpoint import Endpoint, EndpointJudge, read

PROMPT = Prompt(text="p")
CASES = [
    Case(PROMPT, Sample(prompt_id=PROMPT.id, text=a), Sample(prompt_id=PROMPT.id, text=b))
    for a, b in [("x", "xx"), ("xxx", "x"), ("y", "z")]
]


def ask(rule, cases=CASES, **options):
    with judge_server(rule) as (url, received):
        judge = EndpointJudge(Endpoint(url=url, model="m", **options), "1. Be short.", seed=7)
        return [opinion.log_odds for opinion in judge.opinions(cases)], received


def test_it_asks_in_the_servers_words_and_keeps_the_order(monkeypatch):
    monkeypatch.setenv("THE_KEY", "secret")
    found, received = ask(shorter, key_variable="THE_KEY")
    assert found == [math.inf, -math.inf, 0.0]
    headers, body = received[0]
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["seed"], body["temperature"]) == ("m", 7, 0)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("content", "log_odds"),
    [
        ("A", math.inf), ("b", -math.inf), ("Because it is calm.\n\n**Answer: B**", -math.inf), ("Tie.", 0.0),
        ("The verdict is A", None), ("A or B", None), ("A and so on", None), ("", None), (None, None), (["A"], None),
        ("A\nNo, both are bad", None), ("answer is (A)", math.inf), ("A" * 100_000, None),
    ],
)  # fmt: skip
def test_only_a_plain_letter_is_an_opinion(content, log_odds):
    assert read(reply_of(content)).log_odds == log_odds


@pytest.mark.parametrize(
    "reply", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b"[" * 100_000, b"\xff\xfe", b"null"]
)
def test_what_is_no_reply_is_no_opinion(reply):
    assert read(reply).reason == "the reply is malformed"


def test_a_busy_server_is_asked_again():
    seen = []

    def rule(a, b):
        seen.append(a)
        return (429, {"retry-after": "0"}, b"slow down") if len(seen) == 1 else shorter(a, b)

    assert ask(rule, CASES[:1])[0] == [math.inf]
    assert len(seen) == 2


def test_a_late_reply_is_no_opinion():
    def rule(a, b):
        if a == "xxx":
            time.sleep(1.0)
        return shorter(a, b)

    with judge_server(rule) as (url, _):
        judge = EndpointJudge(Endpoint(url=url, model="m", timeout_seconds=0.4, attempts=1, parallel=1), "", 0)
        first, late, third = judge.opinions(CASES)
    assert (first.log_odds, third.log_odds) == (math.inf, 0.0)
    assert late == (None, "the judge did not answer: timed out")


def test_a_refusal_is_an_error_with_the_servers_words_made_safe():
    with pytest.raises(RlhfError, match=r"status 401: bad  ?\[31mkey"):
        ask(lambda a, b: (401, {}, b"bad \x1b[31mkey"))


def test_a_server_that_is_not_there_is_an_error():
    judge = EndpointJudge(Endpoint(url="http://127.0.0.1:9/v1", model="m", attempts=1), "", 0)
    with pytest.raises(RlhfError, match="does not answer: ConnectError"):
        judge.opinions(CASES[:1])


def test_an_endless_reply_is_cut():
    assert ask(lambda a, b: (200, {}, b" " * 3_000_000 + reply_of("A")), CASES[:1])[0] == [None]


def test_a_key_neither_stands_in_the_address_nor_travels_in_the_open(monkeypatch):
    with pytest.raises(ValueError, match="holds no password"):
        Endpoint(url="https://me:secret@example.org/v1", model="m")
    with pytest.raises(ValueError, match="begins with http"):
        Endpoint(url="file:///etc/passwd", model="m")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(RlhfError, match="travel in the open"):
        EndpointJudge(Endpoint(url="http://example.org/v1", model="m"), "", 0)
