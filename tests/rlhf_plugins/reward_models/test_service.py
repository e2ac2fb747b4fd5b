"""Scores from a program behind an address: a small server of the test that counts exclamation marks."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlhf_core.errors import RlhfError
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.evaluators._scorer import ScorerConfig, badness
from rlhf_plugins.reward_models.service import Service, at, filled

PROMPT = Prompt(text="Say {text}")


def perspective(body):
    value = min(body["comment"]["text"].count("!") / 4, 1.0)
    return 200, {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}}}


@contextmanager
def server(rule=perspective):
    """Yields the address and the requests (path, headers, body) so far."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.append((self.path, dict(self.headers), body))
            status, reply = rule(body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/analyze", received
    finally:
        running.shutdown()
        running.server_close()


def scored(url, texts, **options):
    samples = [Sample(prompt_id=PROMPT.id, text=text) for text in texts]
    return Service(url=url, **options).score([PROMPT] * len(texts), samples)


def test_it_speaks_as_perspective_does(monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "secret")
    with server() as (url, received):
        found = scored(url, ["calm", "loud!!", "{prompt}!!!!"])
        assert scored(url, []).mean == []
    assert found.criteria == {"toxicity": [0.0, 0.5, 1.0]}
    assert found.mean == [0.0, -0.5, -1.0]
    assert {path for path, _, _ in received} == {"/analyze?key=secret"}
    texts = {body["comment"]["text"] for _, _, body in received}
    assert texts == {"calm", "loud!!", "{prompt}!!!!"}, "what an answer holds is no template"
    assert received[0][2]["requestedAttributes"] == {"TOXICITY": {}}


def test_another_language(monkeypatch):
    monkeypatch.setenv("OTHER", "secret")
    options = {
        "body": {"input": ["{prompt} / {text}", 1]}, "scores": {"hate": "out.0.hate", "spam": "out.1"},
        "key_variable": "OTHER", "key_as": "bearer",
    }  # fmt: skip
    with server(lambda body: (200, {"out": [{"hate": 0.25}, len(body["input"][0])]})) as (url, received):
        found = scored(url, ["x"], **options)
    assert found.criteria == {"hate": [0.25], "spam": [14.0]}
    assert found.mean == [-14.25]
    path, headers, body = received[0]
    assert (path, headers["Authorization"], body["input"]) == ("/analyze", "Bearer secret", ["Say {text} / x", 1])


def test_it_scores_toxicity_for_evaluators(monkeypatch):
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    with server() as (url, _):
        config = ScorerConfig(by={"use": "service", "url": url})
        found = badness(config, None, [PROMPT], [Sample(prompt_id=PROMPT.id, text="well!")])
    assert found == [0.25]


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (lambda body: (403, b"bad\x1b key"), "refuses: status 403: bad  key"),
        (lambda body: (503, b"later"), "does not answer: status 503"),
        (lambda body: (200, b"<html>"), "no number where `scores` says: <html>"),
        (lambda body: (200, {"attributeScores": {}}), "no number where"),
        (lambda body: (200, b"[" * 100_000), "no number where"),
        (lambda body: (200, b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": NaN}}}}'), "gave .nan"),
    ],
)
def test_a_text_that_nobody_judged_does_not_pass(monkeypatch, rule, wrong):
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    with server(rule) as (url, _), pytest.raises(RlhfError, match=wrong):
        scored(url, ["x"], attempts=1)


def test_a_busy_service_is_asked_again():
    seen = []

    def rule(body):
        seen.append(body)
        return (429, b"busy") if len(seen) == 1 else perspective(body)

    with server(rule) as (url, _):
        assert scored(url, ["!"], attempts=2).criteria == {"toxicity": [0.25]}


def test_a_key_never_travels_in_the_open(monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "secret")
    with pytest.raises(RlhfError, match="in the open"):
        scored("http://scores.example.org/x", ["x"])


def test_templates_and_paths_by_hand():
    assert filled({"a": ["{text}-{prompt}", 3, None]}, "{prompt}", "p") == {"a": ["{prompt}-p", 3, None]}
    assert at({"a": [{"b": 2}]}, "a.0.b") == 2
    with pytest.raises(KeyError):
        at({}, "a")


def test_keeps_the_contract(monkeypatch, rlhf_conformance):
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    with server() as (url, _):
        rlhf_conformance(Service, url=url)
