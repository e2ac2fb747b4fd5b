"""A judge behind an OpenAI-compatible HTTP interface (`/chat/completions`): OpenAI, vLLM, llama.cpp, Ollama, ..."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import PluginConfig
from rlhf_plugins.addresses import Address, key_for
from rlhf_plugins.judging.case import Case, Opinion
from rlhf_plugins.judging.posting import patiently, post

LETTERS = {"A": math.inf, "B": -math.inf, "TIE": 0.0}
LAST_LINE = re.compile(r"(?:(?:final )?(?:answer|verdict|choice)\s*(?:is)?\s*[:：]?[\s*(\[]*)?(a|b|tie)", re.IGNORECASE)


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
        key = key_for(endpoint.url, endpoint.key_variable)
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
        address, patience = f"{self.endpoint.url}/chat/completions", self.endpoint.timeout_seconds
        reply = patiently(lambda: post(client, address, body, patience), self.endpoint.attempts)
        if reply.status == 200:
            self._answered = True
            return read(reply.body)
        if reply.final:
            raise RlhfError(
                f"the judge's server refuses with status {reply.status}: {reply.shown}",
                where=self.endpoint.url,
                remedy=f"Check the address, the model's name, `options`, and the key in {self.endpoint.key_variable}.",
            )
        why = f"status {reply.status}" if reply.status is not None else reply.shown
        if not self._answered:
            raise RlhfError(
                f"the judge's server does not answer: {why}",
                where=self.endpoint.url,
                remedy="Start it, or correct the address; what was judged so far is kept.",
            )
        return Opinion(None, f"the judge did not answer: {why}")


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
