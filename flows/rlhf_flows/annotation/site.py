"""What all routes of the annotators' application share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from rlhf_core.feedback.queue import QuestionQueue
from rlhf_flows.annotation.access import Access
from rlhf_flows.annotation.words import LANGUAGES, language_of, words_in

HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "pages")


class Site:
    """The queue, who may use it, and how pages are made."""

    def __init__(self, queue: QuestionQueue, access: Access, *, url: str, tls: bool) -> None:
        self.queue = queue
        self.access = access
        self.url = url
        self.tls = tls

    def page(self, request: Request, template: str, status: int = 200, **content: Any) -> HTMLResponse:
        """A page in the reader's language."""
        language = language_of(request)
        words = words_in(language)
        context = {"words": words, "language": language, "languages": LANGUAGES, "csrf": self.access.csrf(request)}
        response = templates.TemplateResponse(request, template, {**context, **content}, status_code=status)
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie("rlhf_lang", language, max_age=31_536_000, samesite="lax", secure=self.tls)
        return response
