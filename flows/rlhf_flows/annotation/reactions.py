"""Where a product reports what its users do with the samples that it shows them."""
# Without `from __future__ import annotations`: FastAPI reads the routes' annotations, which name local variables.

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from rlhf_core.feedback.events import Event, EventLog
from rlhf_core.feedback.people import Person
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.shown import prompt_page
from rlhf_flows.annotation.site import Site

EVENTS_AT_ONCE = 1000
QUESTIONS_AT_ONCE = 100


class Reported(BaseModel):
    """Events of one request."""

    model_config = ConfigDict(extra="forbid")

    events: list[Event] = Field(max_length=EVENTS_AT_ONCE)


def add_reactions(app: FastAPI, site: Site, store: FeedbackStore) -> None:
    """Add the routes for programs, which come with the token of their invitation: `Authorization: Bearer TOKEN`."""
    log = EventLog(store)
    App = Annotated[Person, Depends(site.access.program)]

    @app.get("/api/events/questions")
    def questions(program: App, after: Annotated[int, Query(ge=0, le=2**62)] = 0) -> dict[str, Any]:
        """What is to be shown. Nothing is said of the policy; the texts are a model's, to be shown as text."""
        offered = [] if program.paused else log.offered(after, QUESTIONS_AT_ONCE)
        return {
            "questions": [
                {
                    "question": question.id,
                    "prompt": prompt_page(question.prompt),
                    "samples": [{"sample": sample.id, "text": sample.text} for sample in question.samples],
                }
                for _, question in offered
            ],
            "after": offered[-1][0] if offered else after,
        }

    @app.post("/api/events")
    def report(program: App, reported: Reported) -> dict[str, int]:
        """The events are on the disk when this answers; sending them again changes nothing."""
        return log.append(program.name, reported.events)._asdict()
