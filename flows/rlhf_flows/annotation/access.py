"""Who is asking, and how often: sessions from invitation links, the guest on this machine, CSRF tokens, rate limits."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import HTTPException, Request

from rlhf_core.feedback.people import People, Person

SESSION = "rlhf_session"
"""The cookie that holds the token of the invitation."""
CSRF_HEADER = "x-rlhf-csrf"
PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
LIMITED_KEYS = 10_000
"""How many callers a rate limit remembers."""


class RateLimit:
    """A token bucket a caller: `burst` requests at once, and `per_second` in the long run."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, caller: str) -> float:
        """0 where the request is within the limit, else the seconds to wait."""
        with self._lock:
            now = self._clock()
            left, since = self._left.pop(caller, (float(self._burst), now))
            left = min(float(self._burst), left + (now - since) * self._per_second)
            wait = 0.0 if left >= 1 else (1 - left) / self._per_second
            self._left[caller] = (left if wait else left - 1, now)
            while len(self._left) > LIMITED_KEYS:
                del self._left[next(iter(self._left))]  # the one that asked longest ago
            return wait

    def check(self, caller: str) -> None:
        """Raises 429 where `caller` asks too often."""
        if wait := self.take(caller):
            raise HTTPException(429, "too many requests", {"Retry-After": str(int(wait) + 1)})


@dataclass
class Access:
    """Who may do what."""

    people: People
    guest: str | None
    """Who somebody without an invitation is, on this machine alone; None where everybody needs one."""
    requests: RateLimit = field(default_factory=lambda: RateLimit(per_second=5, burst=40))
    guesses: RateLimit = field(default_factory=lambda: RateLimit(per_second=0.2, burst=10))
    reports: RateLimit = field(default_factory=lambda: RateLimit(per_second=20, burst=100))
    _secret: str = field(default_factory=secrets.token_hex)

    def person(self, request: Request) -> Person:
        """Who asks. Raises 401 where nobody knows."""
        token = request.cookies.get(SESSION, "")
        known = self.people.holder(token) if token else None
        if known is None and not token and self.guest and not any(name in request.headers for name in PROXY_HEADERS):
            paused = self.people.named(self.guest)
            known = Person(self.guest, "lead", bool(paused and paused.paused))
        if known is None or known.role == "app":
            raise HTTPException(401, "this page is for invited annotators; open the link that you were sent")
        self.requests.check(known.name)
        return known

    def lead(self, request: Request) -> Person:
        """Who asks, if it is a lead. Raises 403 where not."""
        person = self.person(request)
        if person.role != "lead":
            raise HTTPException(403, "this page is for the lead of the annotators")
        return person

    def program(self, request: Request) -> Person:
        """The program that asks, by its token in the header `Authorization`. Raises 401 where nobody knows it.

        It brings no cookie, so no other site can make a browser speak in its name.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = self.people.holder(token.strip()) if scheme.lower() == "bearer" else None
        if known is None or known.role != "app":
            self.guesses.check(request.client.host if request.client else "")
            raise HTTPException(401, "a program needs the token of `rlhf invite NAME --app`, as Authorization: Bearer")
        self.reports.check(known.name)
        return known

    def csrf(self, request: Request) -> str:
        """The token that changes must bring along, which no other site can know."""
        session = request.cookies.get(SESSION) or self._secret
        return hashlib.sha256(f"csrf {session}".encode()).hexdigest()

    def protect(self, request: Request) -> None:
        """Raises 403 where a change does not come from our own page."""
        brought = request.headers.get(CSRF_HEADER, "")
        site = request.headers.get("sec-fetch-site", "same-origin")
        if not hmac.compare_digest(brought.encode(), self.csrf(request).encode()) or site != "same-origin":
            raise HTTPException(403, "the page is out of date; load it again")
