"""What every response carries, and how much a request may."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 1_000_000
"""Bytes of a request."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


class Guarded:
    """Middleware: a strict content security policy, no sniffing, no framing, no caching of what people see."""

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self.app = app
        self.headers = list(HEADERS.items())
        if tls:
            self.headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, if it is small enough to be one of ours."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [] if scope["path"].startswith("/static/") else [(b"cache-control", b"no-store")]
                message["headers"] = [*message.get("headers", []), *self.headers, *own]
            await send(message)

        headers = dict(scope["headers"])
        has_body = scope["method"] not in ("GET", "HEAD")
        length = headers.get(b"content-length", b"")
        if has_body and not (length.isdigit() and int(length) <= BODY_LIMIT):
            await guarded({"type": "http.response.start", "status": 413, "headers": []})
            await guarded(
                {"type": "http.response.body", "body": b"the request is too large, or does not say how large"}
            )
            return
        await self.app(scope, receive, guarded)
