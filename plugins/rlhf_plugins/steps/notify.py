"""Step `notify`: tells a webhook what happens to a campaign."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from rlhf_core.plugins import EVENTS, Event, EventName, PluginConfig, Step

TRIES = 3
BACKOFF = 1.0
"""Seconds before the second try, twice as many before the third."""
WORDS: dict[EventName, str] = {
    "waiting": "waits for people",
    "promoted": "the challenger was promoted",
    "kept": "the champion was kept",
    "failed": "the run failed",
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Notify(Step):
    """Posts to a webhook when a campaign waits for people, when a challenger is promoted or the champion kept, and
    when a run fails; each of them once.

    It does nothing at its place and never stops a campaign: a webhook that cannot be reached in three tries is noted.
    """

    hears = frozenset(EVENTS)

    class Config(PluginConfig):
        """Where to, what about, and in which form."""

        url: str = Field(min_length=1)
        """The webhook's address. Whoever knows it can post there, so it is best kept in the environment: written
        `$${TEAM_WEBHOOK}`, with two dollar signs, it is looked up when something is sent and stands in no record;
        with one it becomes part of the pipeline when that is read."""
        format: Literal["json", "slack"] = "json"
        """`json`: the event with its facts (`event`, `pipeline`, `round`, `text`, `key`, `data`). `slack`: a message as
        Slack's incoming webhooks take it; Mattermost and Discord (at `/slack`) understand it, too."""
        events: tuple[EventName, ...] = Field(EVENTS, min_length=1)
        """What is told."""
        timeout: float = Field(10.0, gt=0)
        """Seconds that one try may take."""

        @model_validator(mode="after")
        def _is_an_address(self) -> Self:
            # The address itself is never repeated: it is a secret.
            if not _VARIABLE.search(self.url) and not self.url.lower().startswith(("http://", "https://")):
                raise ValueError("the url should begin with http:// or https://")
            return self

    def hear(self, event: Event) -> None:
        """Post the event, where it is one of those that are told."""
        if event.name not in self.config.events:
            return
        message = _slack(event) if self.config.format == "slack" else _plain(event)
        wrong = self._post(json.dumps(message, ensure_ascii=False).encode())
        if wrong:
            self.run.note(f"the webhook was not told that {event.pipeline} {_what(event)}: {wrong}")

    def _post(self, body: bytes) -> str:
        """Send it; what went wrong, in words without the address."""
        missing = [name for name in _VARIABLE.findall(self.config.url) if name not in os.environ]
        if missing:
            return f"the environment variable {missing[0]} is not set"
        url = _VARIABLE.sub(lambda match: os.environ[match[1]], self.config.url)
        wrong = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            wrong, again = _send(url, body, self.config.timeout)
            if not again:
                return wrong
        return f"{wrong}, in {TRIES} tries"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message that is sent on with GET is lost; better say so."""

    def redirect_request(self, *_: Any) -> None:
        """None."""


def _send(url: str, body: bytes, timeout: float) -> tuple[str, bool]:
    """One try: what went wrong, and whether another one may help."""
    # The standard library's client: others log every address that they call.
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json; charset=utf-8"})
        with opener.open(request, timeout=timeout):
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        busy = error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
        return f"it answered {error.code}", busy
    except (OSError, HTTPException, ValueError) as error:
        # Texts of errors may hold the address; names of their classes do not.
        reason = getattr(error, "reason", error)
        kind = type(reason if isinstance(reason, Exception) else error).__name__
        return f"it cannot be reached ({kind})", not isinstance(error, ValueError)


def _plain(event: Event) -> dict[str, JsonValue]:
    return {
        "event": event.name,
        "pipeline": event.pipeline,
        "round": event.round,
        "text": event.text,
        "key": event.key,
        "data": dict(event.data),
    }


def _slack(event: Event) -> dict[str, JsonValue]:
    heading = f"*{_escaped(event.pipeline)}*: {_what(event)}"
    return {"text": f"{heading}\n{_escaped(event.text)}" if event.text else heading}


def _what(event: Event) -> str:
    return f"{WORDS[event.name]} (round {event.round})"


def _escaped(text: str) -> str:
    """The three characters that mean something to Slack."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
