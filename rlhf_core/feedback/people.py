"""Who may answer: the invited annotators and leads, known by the token in the link they were sent, and programs that
report what their users do."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import select

from rlhf_core.errors import StoreError
from rlhf_core.feedback.inserts import insert_new
from rlhf_core.feedback.intake import sortable
from rlhf_core.feedback.schema import people
from rlhf_core.feedback.store import FeedbackStore

PersonRole = Literal["annotator", "lead", "app"]
"""An app is no person: a program that shows samples to its users and reports what they do."""
NAME = re.compile(r"[^\W_][\w .@+-]{0,59}")
"""Letters of any script, digits, and a few signs: what can stand in a file name, a log and a link."""


class Person(NamedTuple):
    """Somebody who was invited."""

    name: str
    role: PersonRole
    paused: bool


class People:
    """The people of one store. Tokens are kept as digests: who reads the database cannot answer in their name."""

    def __init__(self, store: FeedbackStore) -> None:
        self._database = store.database

    def invite(self, name: str, role: PersonRole = "annotator") -> str:
        """A new token for `name`; an earlier one is good no longer. Raises StoreError where the name cannot be one."""
        if not NAME.fullmatch(name):
            raise StoreError(
                f"{name!r} cannot be the name of an annotator",
                remedy="Names have up to 60 letters, digits, spaces, dots, dashes, plus and at signs.",
            )
        token = secrets.token_urlsafe(24)
        row = {"name": name, "role": role, "token_digest": _digest(token), "paused": 0}
        with self._database.write() as connection:
            if not insert_new(connection, people, [{**row, "created_at": sortable(datetime.now(UTC))}]):
                known = people.c.name == name
                connection.execute(people.update().where(known).values(role=role, token_digest=row["token_digest"]))
        return token

    def holder(self, token: str) -> Person | None:
        """Whose token it is."""
        return self._one(people.c.token_digest == _digest(token))

    def named(self, name: str) -> Person | None:
        """The person called `name`."""
        return self._one(people.c.name == name)

    def all(self) -> list[Person]:
        """Everybody, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(people).order_by(people.c.name))
            return [Person(row.name, row.role, bool(row.paused)) for row in rows]

    def pause(self, name: str, paused: bool = True) -> None:
        """Give `name` no more questions, or go on. Somebody who was not invited (on localhost) can be paused, too."""
        with self._database.write() as connection:
            row = {"name": name, "role": "annotator", "token_digest": f"none {name}", "paused": int(paused)}
            if not insert_new(connection, people, [{**row, "created_at": sortable(datetime.now(UTC))}]):
                connection.execute(people.update().where(people.c.name == name).values(paused=int(paused)))

    def _one(self, condition: object) -> Person | None:
        with self._database.read() as connection:
            row = connection.execute(select(people).where(condition)).first()  # type: ignore[arg-type]
        return None if row is None else Person(row.name, row.role, bool(row.paused))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
