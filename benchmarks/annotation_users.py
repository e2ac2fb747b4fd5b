"""The annotators of `annotation.py`, for Locust: each joins by a link, answers as the page does, thinks, answers again.

What the server said was accepted is written down, a line an answer, and reported to Locust under the name `accepted`
with the time of the try that succeeded: while the server is away a page tries again, as these do.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import HttpUser, task
from locust.exception import StopUser

TOKENS = iter(Path(os.environ["ANNOTATION_TOKENS"]).read_text().split())
ACCEPTED = Path(os.environ["ANNOTATION_ACCEPTED"])
THINK = float(os.environ["ANNOTATION_THINK"])


class Annotator(HttpUser):
    """One person."""

    def wait_time(self) -> float:
        """Thinking."""
        return random.expovariate(1 / THINK)

    def on_start(self) -> None:
        """Join, and see the first question."""
        token = next(TOKENS)
        page = self._until(lambda: self.client.get(f"/join/{token}", name="/join"))
        self.client.headers["x-rlhf-csrf"] = re.search('name="csrf" content="(.*?)"', page.text)[1]  # type: ignore[index]
        self.name = re.search('class="who">(.*?)<', page.text)[1]  # type: ignore[index]
        self.item = self._until(lambda: self.client.get("/api/next")).json()["item"]
        gevent.sleep(self.wait_time())

    @task
    def answer(self) -> None:
        """Answer the question on the page, and see the next one."""
        if self.item is None:
            raise StopUser
        given = {"view": "pair", "choice": random.choice(["first", "second", "tie"]), "seconds": 1.0}
        content = {"form": self.item["form"], "question": self.item["question"], "given": given, "draft": {}}
        reply = self._until(lambda: self.client.post("/api/answer", json=content), "accepted")
        with ACCEPTED.open("a") as file:
            file.write(f"{self.name}\t{self.item['question']}\n")
        self.item = reply.json()["item"]

    def _until(self, request: Callable[[], Any], reported: str = "") -> Any:
        while True:
            began = time.perf_counter()
            response = request()
            if response.status_code in (0, 429, 503):  # away, or busy
                gevent.sleep(float(response.headers.get("retry-after", 1)) if response.status_code else 0.5)
                continue
            response.raise_for_status()
            if reported:
                took = 1000 * (time.perf_counter() - began)
                self.environment.events.request.fire(
                    request_type="answer", name=reported, response_time=took, response_length=0, exception=None
                )
            return response
