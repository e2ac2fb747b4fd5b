"""A judge behind an OpenAI-compatible HTTP interface (`/chat/completions`): OpenAI, vLLM, llama.cpp, Ollama, ..."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import PluginConfig
from rlhf_plugins.addresses import Address, is_in_the_open
from rlhf_plugins.judging.case import Case, Opinion

LONGEST_REPLY = 1_000_000
"""Bytes of a reply that are read."""
LONGEST_PAUSE = 30.0
"""Seconds between two attempts at most, whatever the server asks for."""
LETTERS = {"A": math.inf, "B": -math.inf, "TIE": 0.0}
LAST_LINE = re.compile(r"(?:(?:final )?(?:answer|verdict|choice)\s*(?:is)?\s*[:：]?[\s*(\[]*)?(a|b|tie)", re.IGNORECASE)
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class Endpoint(PluginConfig):
    """Where the judge is."""

    url: Address
    """Base address of the interface, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1."""
    model: str = Field(min_length=1)
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. Without one, none is sent."""
    options: dict[str, JsonValue] = {"temperature": 0, "max_tokens": 512}
    """Further fields of each request, as this server and model take them."""
    timeout_seconds: float = Field(60.0, gt=0)
    """How long one reply may take."""
    attempts: int = Field(3, ge=1)
    """How often a question is asked whose reply does not come, or while the server is busy."""
    parallel: int = Field(4, ge=1)
    """Requests under way at once."""


class EndpointJudge:
    """Asks over HTTP. A reply that is late, malformed or ambiguous is no opinion."""

    form = "line"

    def __init__(self, endpoint: Endpoint, principles: str, seed: int) -> None:
        self.endpoint, self.principles, self.seed = endpoint, principles, seed
        self._answered = False
        key = os.environ.get(endpoint.key_variable, "")
        if key and is_in_the_open(endpoint.url):
            raise RlhfError(
                f"the key in {endpoint.key_variable} would travel in the open",
                where=endpoint.url,
                remedy="Use an https:// address, or unset the variable where the server needs no key.",
            )
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def opinions(self, cases: Sequence[Case]) -> list[Opinion]:
        """One opinion a case. Raises RlhfError where the server refuses, or has never answered."""
        import httpx

        with (
            httpx.Client(timeout=self.endpoint.timeout_seconds, headers=self._headers) as client,
            ThreadPoolExecutor(self.endpoint.parallel) as pool,
        ):
            return list(pool.map(lambda case: self._ask(client, case), cases))

    def _ask(self, client: Any, case: Case) -> Opinion:
        chat = case.messages(self.principles, self.form)
        body = {
            "model": self.endpoint.model,
            "messages": [message.model_dump() for message in chat.messages],
            "seed": self.seed,
            **self.endpoint.options,
        }
        why, pause = "", 0.5
        for attempt in range(self.endpoint.attempts):
            if attempt:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            status, reply, asked_to_wait = self._post(client, body)
            if status == 200:
                self._answered = True
                return read(reply)
            if status is not None and status not in TRY_AGAIN:
                raise RlhfError(
                    f"the judge's server refuses with status {status}: {_shown(reply)}",
                    where=self.endpoint.url,
                    remedy="Check the address, the model's name, `options`, and the key in "
                    f"{self.endpoint.key_variable}.",
                )
            why = f"status {status}" if status is not None else _shown(reply)
            pause = max(pause, asked_to_wait)
        if not self._answered:
            raise RlhfError(
                f"the judge's server does not answer: {why}",
                where=self.endpoint.url,
                remedy="Start it, or correct the address; what was judged so far is kept.",
            )
        return Opinion(None, f"the judge did not answer: {why}")

    def _post(self, client: Any, body: dict[str, Any]) -> tuple[int | None, bytes, float]:
        """Status (None where there was no reply), the reply or what went wrong, seconds the server asks to wait."""
        import httpx

        deadline = time.monotonic() + self.endpoint.timeout_seconds
        try:
            with client.stream("POST", f"{self.endpoint.url}/chat/completions", json=body) as response:
                reply = b""
                for part in response.iter_bytes():
                    reply += part
                    if len(reply) > LONGEST_REPLY:
                        break
                    if time.monotonic() > deadline:  # httpx counts from one piece to the next
                        raise httpx.ReadTimeout("timed out")
                wait = response.headers.get("retry-after", "")
                return response.status_code, reply, min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0.0
        except httpx.TimeoutException:
            return None, b"timed out", 0.0
        except httpx.TransportError as error:
            return None, type(error).__name__.encode(), 0.0


def read(reply: bytes) -> Opinion:
    """The opinion in a reply: its text's last line must be A, B or TIE, perhaps as `Answer: A`, and nothing else."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return Opinion(None, "the reply is malformed")
    lines = content.strip().splitlines() if isinstance(content, str) else []
    found = LAST_LINE.fullmatch(lines[-1].strip(" \t*_`\"'.()[]")) if lines else None
    if found is None:
        return Opinion(None, "the reply names neither answer")
    return Opinion(LETTERS[found[1].upper()])


def _shown(reply: bytes) -> str:
    """The beginning of what a server said, safe to print."""
    text = reply[:400].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]
