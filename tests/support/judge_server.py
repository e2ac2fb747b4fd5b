"""A small server that speaks OpenAI's `/chat/completions`. Not a model: it answers by a rule of the test."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str, str], Any]
"""From the texts of answers A and B to a reply's text, or to (status, headers, body)."""


def shown(body: dict) -> tuple[str, str]:
    """The two answers as the judge sees them."""
    text = body["messages"][-1]["content"]
    first, second = (re.search(rf"\[\w+ answer {x}\]\n(.*?)\n\[\w+ end of answer {x}\]", text, re.S) for x in "AB")
    return first[1], second[1]


@contextmanager
def judge_server(rule: Rule):
    """Yields the base address and the list of requests (headers and body) received so far."""
    received: list[tuple[dict, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.append((dict(self.headers), body))
            assert self.path == "/v1/chat/completions"
            said = rule(*shown(body))
            status, headers, reply = said if isinstance(said, tuple) else (200, {}, reply_of(said))
            try:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(reply))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has given up

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        server.server_close()


def reply_of(content: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def shorter(a: str, b: str) -> str:
    """A rule that does not look at the order."""
    return "TIE" if len(a) == len(b) else "A" if len(a) < len(b) else "B"
