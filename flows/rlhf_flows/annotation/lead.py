"""The lead's pages: how everybody is doing, and what can be done about it."""
# Without `from __future__ import annotations`: FastAPI reads the routes' annotations, which name local variables.

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from rlhf_core.errors import DataError
from rlhf_core.feedback.export import EXPORTS, write_parquet
from rlhf_core.feedback.panel import Panel, panel
from rlhf_core.feedback.people import Person
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer
from rlhf_flows.annotation.site import Site

FRESH_FOR = 3.0
"""Seconds that figures are shown again without being computed again."""
CHANGES = "/lead/api"


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)


class Pause(_Named):
    """Give an annotator no more questions, or go on."""

    paused: bool


class Withdraw(_Named):
    """Leave out what an annotator said."""

    reason: str = Field("withdrawn by the lead", max_length=1000)


class Invite(_Named):
    """A link for somebody."""

    role: Literal["annotator", "lead"] = "annotator"


class Figures:
    """The panel's figures, computed at most every few seconds whoever looks."""

    def __init__(self, site: Site, store: FeedbackStore) -> None:
        self._site = site
        self._store = store
        self._lock = threading.Lock()
        self._known: tuple[float, Panel] | None = None

    def panel(self) -> Panel:
        """The figures of all answers by people."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > FRESH_FOR:
                found = panel(self.answers(), *self._site.queue.mixed_in())
                self._known = (time.monotonic(), found)
            return self._known[1]

    def answers(self) -> Iterator[Answer]:
        """What people said about the questions posted, as it counts now."""
        for answer in self._store.answers(self._site.queue.question_ids()):
            if answer.feedback.source == "person":
                yield answer

    def forget(self) -> None:
        """Compute anew next time."""
        self._known = None


def add_lead(app: FastAPI, site: Site, store: FeedbackStore) -> None:
    """Add the lead's pages to the application."""
    access, people, figures = site.access, site.access.people, Figures(site, store)
    changes: Any = {"dependencies": [Depends(access.protect), Depends(access.lead)]}

    @app.get("/lead")
    def lead(request: Request, person: Annotated[Person, Depends(access.lead)]) -> HTMLResponse:
        progress, invited = site.queue.progress(), {each.name: each for each in people.all()}
        found = figures.panel()
        asked = {name for name, each in invited.items() if each.role != "app"}
        silent = sorted(asked - {each.name for each in found.annotators})
        return site.page(
            request, "lead.html", person=person, progress=progress, panel=found, invited=invited, silent=silent,
            forecast=_forecast(progress.seconds_left),
        )  # fmt: skip

    @app.post(f"{CHANGES}/pause", **changes)
    def pause(wish: Pause) -> dict[str, bool]:
        people.pause(wish.name, wish.paused)
        return {"paused": wish.paused}

    @app.post(f"{CHANGES}/withdraw", **changes)
    def withdraw(wish: Withdraw) -> dict[str, int]:
        figures.forget()
        return {"withdrawn": store.withdraw(annotator=wish.name, reason=wish.reason)}

    @app.post(f"{CHANGES}/invite", **changes)
    def invite(wish: Invite, request: Request) -> dict[str, str]:
        base = site.url or str(request.base_url).rstrip("/")
        return {"link": f"{base}/join/{people.invite(wish.name, wish.role)}"}

    @app.get("/lead/export/{name}", dependencies=[Depends(access.lead)])
    def export(name: str) -> Response:
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        for file, write in EXPORTS.values():
            if name == file:
                kind = "application/jsonl" if name.endswith(".jsonl") else "application/json"
                return StreamingResponse(write(figures.answers()), media_type=kind, headers=headers)
        if name == "answers.parquet":
            with tempfile.TemporaryDirectory() as folder:
                write_parquet(figures.answers(), Path(folder) / name)
                parquet = (Path(folder) / name).read_bytes()
            return Response(parquet, media_type="application/vnd.apache.parquet", headers=headers)
        raise DataError(f"there are {', '.join(file for file, _ in EXPORTS.values())} and answers.parquet")


def _forecast(seconds: float | None) -> str:
    """A stretch of time in the largest units that say enough."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
