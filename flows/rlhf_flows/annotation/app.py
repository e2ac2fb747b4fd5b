"""The annotators' web application."""
# Without `from __future__ import annotations`: FastAPI reads the routes' annotations, which name local variables.

import json
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, JsonValue
from starlette.exceptions import HTTPException as StarletteError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.feedback.people import People, Person
from rlhf_core.feedback.progress import Standing
from rlhf_core.feedback.queue import Assigned, QuestionQueue, Refused
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.annotation.access import SESSION, Access
from rlhf_flows.annotation.headers import Guarded
from rlhf_flows.annotation.lead import add_lead
from rlhf_flows.annotation.reactions import add_reactions
from rlhf_flows.annotation.shown import TEXT_LIMIT, AnyGiven, feedback_of, page_of
from rlhf_flows.annotation.site import HERE, Site


class _Place(BaseModel):
    """Which question the page speaks of."""

    model_config = ConfigDict(extra="forbid")

    form: str
    question: str


class AnswerPosted(_Place):
    """An answer, with the state of the page, to be shown again after an undo."""

    given: AnyGiven
    draft: JsonValue = None


class DraftPosted(_Place):
    """An answer half done."""

    draft: JsonValue


def make_app(store: FeedbackStore, guest: str | None, *, hosts: list[str], url: str = "", tls: bool = False) -> FastAPI:
    """The application on `store`.

    `guest` is who comes without an invitation, if anybody may. `hosts` are the names it answers to (`["*"]` for any);
    `url` is where people open it, for links; `tls` says that cookies can be secure.
    """
    app = FastAPI(title="rlhf annotate", docs_url=None, redoc_url=None, openapi_url=None)
    site = Site(QuestionQueue(store), Access(People(store), guest), url=url, tls=tls)
    app.add_middleware(Guarded, tls=tls)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    _add_pages(app, site)
    _add_api(app, site)
    add_lead(app, site, store)
    add_reactions(app, site, store)
    _add_errors(app, site)
    return app


def _add_pages(app: FastAPI, site: Site) -> None:
    access = site.access

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    def page(request: Request, person: Annotated[Person, Depends(access.person)]) -> HTMLResponse:
        return site.page(request, "answer.html", person=person)

    @app.get("/join/{token}")
    def join(request: Request, token: str) -> Response:
        known = access.people.holder(token)
        if known is None or known.role == "app":
            # Only wrong tokens count: a whole team may sit behind one address.
            access.guesses.check(request.client.host if request.client else "")
            raise HTTPException(401, "this invitation is not good any more; ask for a new link")
        response = RedirectResponse("/", 303)
        response.set_cookie(
            SESSION, token, max_age=90 * 86_400, httponly=True, samesite="lax", secure=site.tls, path="/"
        )
        return response


def _add_api(app: FastAPI, site: Site) -> None:
    access, queue = site.access, site.queue

    def held_page(held: Assigned | None, name: str, standing: Standing | None = None) -> dict[str, Any]:
        standing = standing or queue.standing(name)
        return {"item": None if held is None else page_of(held, name), "standing": standing._asdict()}

    @app.get("/api/csrf", dependencies=[Depends(access.person)])
    def csrf(request: Request) -> dict[str, str]:
        return {"csrf": access.csrf(request)}  # no other site can read it

    @app.get("/api/next")
    def next_question(person: Annotated[Person, Depends(access.person)]) -> dict[str, Any]:
        return {**held_page(queue.next(person.name), person.name), "paused": person.paused}

    @app.post("/api/answer", dependencies=[Depends(access.protect)])
    def answer(posted: AnswerPosted, person: Annotated[Person, Depends(access.person)]) -> dict[str, Any]:
        held = queue.asked(posted.form, posted.question)
        given = feedback_of(held, person.name, posted.given)
        place = (person.name, posted.form, posted.question)
        accepted, next_one, standing = queue.answer_and_next(*place, given, posted.draft)
        return {**held_page(next_one, person.name, standing), "accepted": accepted}

    @app.post("/api/draft", dependencies=[Depends(access.protect)])
    def draft(posted: DraftPosted, person: Annotated[Person, Depends(access.person)]) -> dict[str, bool]:
        if len(json.dumps(posted.draft)) > 4 * TEXT_LIMIT:
            raise DataError("the draft is too long")
        queue.save_draft(person.name, posted.form, posted.question, posted.draft)
        return {"saved": True}

    @app.post("/api/undo", dependencies=[Depends(access.protect)])
    def undo(person: Annotated[Person, Depends(access.person)]) -> dict[str, Any]:
        held = queue.undo(person.name)
        return {**held_page(held or queue.next(person.name), person.name), "undone": held is not None}


def _add_errors(app: FastAPI, site: Site) -> None:
    """Errors as one sentence: JSON for the page's own requests, a page for people."""

    def said(request: Request, status: int, what: str, headers: Any = None) -> Response:
        if request.url.path.startswith(("/api/", "/lead/api/")):
            return JSONResponse({"error": what}, status, headers)
        response = site.page(request, "closed.html", status, what=what)
        response.headers.update(headers or {})
        return response

    @app.exception_handler(StarletteError)
    async def http(request: Request, error: StarletteError) -> Response:
        return said(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return said(request, 422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @app.exception_handler(RlhfError)
    async def ours(request: Request, error: RlhfError) -> Response:
        status = 409 if isinstance(error, Refused) else 422 if isinstance(error, DataError) else 503
        return said(request, status, error.what)
