"""HTTP exchanges with another program: written down while it is there, and played back where it is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

SECRET = ("authorization", "x-argilla-api-key")


class Exchanges:
    """What was asked and answered. Tokens are checked, never written down."""

    def __init__(self, token: str, target: str | None = None, known: list[dict[str, Any]] | None = None) -> None:
        self.token = token
        self.target = target
        self.known = known or []
        self.asked: list[str] = []
        """`METHOD path` of everything that was asked, in order."""
        self.strange: list[str] = []
        """What was asked and is not among the known."""
        self._used: set[int] = set()
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """Status and text of the answer."""
        with self._lock:
            self.asked.append(f"{method} {path}")
            content = json.loads(body) if body else None
            if self.target is not None:
                kept = {name: value for name, value in headers.items() if name in (*SECRET, "content-type")}
                reply = httpx.request(method, self.target + path, headers=kept, content=body, timeout=120)
                self.known.append({"ask": [method, path, content], "status": reply.status_code, "answer": reply.text})
                return reply.status_code, reply.text
            if not any(self.token in headers.get(name, "") for name in SECRET):
                return 401, '{"detail": "Invalid token."}'
            for number, exchange in enumerate(self.known):
                if number not in self._used and exchange["ask"] == [method, path, content]:
                    self._used.add(number)
                    return exchange["status"], exchange["answer"]
            self.strange.append(f"{method} {path} {content}")
            return 599, "{}"

    def write(self, path: Path) -> None:
        """Keep them in a file."""
        path.write_text(json.dumps(self.known, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def serving(exchanges: Any) -> Iterator[str]:
    """The address of a server on this machine that answers as `exchanges.answer` says."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, text = exchanges.answer(self.command, self.path, headers, body)
            content = text.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
