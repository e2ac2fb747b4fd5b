"""Asking a service over HTTP that may be slow, busy or hostile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

LONGEST_REPLY = 1_000_000
"""Bytes of a reply that are read."""
LONGEST_PAUSE = 30.0
"""Seconds between two attempts at most, whatever the server asks for."""
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class Reply(NamedTuple):
    """What came back."""

    status: int | None
    """None where there was no reply."""
    body: bytes
    """The reply, or what went wrong."""
    wait: float = 0.0
    """Seconds that the server asks to wait."""

    @property
    def final(self) -> bool:
        """Whether asking again would change nothing."""
        return self.status is not None and self.status not in TRY_AGAIN

    @property
    def shown(self) -> str:
        """The beginning of what was said, safe to print."""
        text = self.body[:400].decode("utf-8", "replace")
        return "".join(letter if letter.isprintable() else " " for letter in text)[:200]


def post(client: Any, url: str, body: Any, timeout: float) -> Reply:
    """POST `body` as JSON with an httpx client, reading no more and no longer than allowed (`timeout` in seconds)."""
    import httpx

    deadline = time.monotonic() + timeout
    try:
        with client.stream("POST", url, json=body) as response:
            reply = b""
            for part in response.iter_bytes():
                reply += part
                if len(reply) > LONGEST_REPLY:
                    break
                if time.monotonic() > deadline:  # httpx counts from one piece to the next
                    raise httpx.ReadTimeout("timed out")
            wait = response.headers.get("retry-after", "")
            return Reply(response.status_code, reply, min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0.0)
    except httpx.TimeoutException:
        return Reply(None, b"timed out")
    except httpx.TransportError as error:
        return Reply(None, type(error).__name__.encode())


def patiently(ask: Callable[[], Reply], attempts: int) -> Reply:
    """The first final reply, or the last of so many attempts, with growing pauses between them."""
    pause = 0.5
    for _ in range(attempts - 1):
        reply = ask()
        if reply.final:
            return reply
        time.sleep(max(pause, reply.wait))
        pause = min(2 * max(pause, reply.wait), LONGEST_PAUSE)
    return ask()
