"""Reward model `service`: scores that a program behind an HTTP address gives, such as Perspective's toxicity."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import Field, JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import TEXT, PluginConfig, RewardModel, Scores
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.addresses import Address, key_for
from rlhf_plugins.reward_models._learning import text_of


class Service(RewardModel):
    """Asks once for each answer. `criteria` are the numbers of the reply, `mean` is minus their sum.

    As it comes it speaks the language of Perspective's `comments:analyze`; body and paths fit it to others.
    """

    modality = TEXT

    class Config(PluginConfig):
        """Where it is, what it is sent, where the scores stand in its reply."""

        url: Address
        """Full address, such as `https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze`."""
        body: JsonValue = {
            "comment": {"text": "{text}"},
            "requestedAttributes": {"TOXICITY": {}},
            "doNotStore": True,
        }
        """JSON to send; `{text}` and `{prompt}` in its strings are replaced by the answer and its prompt."""
        scores: dict[str, str] = Field({"toxicity": "attributeScores.TOXICITY.summaryScore.value"}, min_length=1)
        """Criterion -> its place in the reply, a path of names and list positions; high is bad."""
        key_variable: str = "PERSPECTIVE_API_KEY"
        """Environment variable that holds the key. Without one, none is sent."""
        key_as: Literal["query", "bearer"] = "query"
        """Send the key as `?key=...`, or as a bearer token."""
        max_characters: int = Field(20_000, ge=1)
        """Only so much of an answer is sent."""
        timeout_seconds: float = Field(30.0, gt=0)
        """How long one reply may take."""
        attempts: int = Field(3, ge=1)
        """How often it is asked while it does not answer or is busy."""
        parallel: int = Field(4, ge=1)
        """Requests under way at once."""

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Raises RlhfError where the service refuses, does not answer, or gives no finite number: a text that nobody
        judged must not pass for a harmless one.
        """
        import httpx

        config = self.config
        if not samples:
            return Scores([], criteria={name: [] for name in config.scores})
        send: dict[str, Any] = {}
        if key := key_for(config.url, config.key_variable):
            query = config.key_as == "query"
            send = {"params": {"key": key}} if query else {"headers": {"Authorization": f"Bearer {key}"}}
        bodies = [
            filled(config.body, text_of(sample, self)[: config.max_characters], prompt.content)
            for prompt, sample in zip(prompts, samples, strict=True)
        ]
        with (
            httpx.Client(timeout=config.timeout_seconds, **send) as client,
            ThreadPoolExecutor(config.parallel) as pool,
        ):
            rows = list(pool.map(lambda body: self._ask(client, body), bodies))
        criteria = {name: [row[i] for row in rows] for i, name in enumerate(config.scores)}
        return Scores([-sum(row) for row in rows], criteria=criteria)

    def _ask(self, client: Any, body: Any) -> list[float]:
        """The scores of one answer."""
        from rlhf_plugins.judging.posting import patiently, post

        config = self.config
        reply = patiently(lambda: post(client, config.url, body, config.timeout_seconds), config.attempts)
        if reply.status != 200:
            said = f"status {reply.status}: {reply.shown}" if reply.status is not None else reply.shown
            raise RlhfError(
                f"the service {'refuses' if reply.final else 'does not answer'}: {said}",
                where=config.url,
                remedy=f"Check the address, `body`, and the key in {config.key_variable}.",
            )
        try:
            found = json.loads(reply.body)
            values = [float(at(found, path)) for path in config.scores.values()]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise RlhfError(
                f"the reply has no number where `scores` says: {reply.shown}",
                where=config.url,
                remedy="Correct the paths in `scores`.",
            ) from error
        if not all(map(math.isfinite, values)):
            raise RlhfError(f"the service gave {values}", where=config.url)
        return values


def filled(body: Any, text: str, prompt: str) -> Any:
    """`body` with `{text}` and `{prompt}` replaced in all its strings; what an answer holds is left alone."""
    if isinstance(body, dict):
        return {name: filled(value, text, prompt) for name, value in body.items()}
    if isinstance(body, list):
        return [filled(value, text, prompt) for value in body]
    if not isinstance(body, str):
        return body
    return text.join(part.replace("{prompt}", prompt) for part in body.split("{text}"))


def at(reply: Any, path: str) -> Any:
    """What stands at `a.0.b`."""
    for name in path.split("."):
        reply = reply[int(name)] if isinstance(reply, list) else reply[name]
    return reply
