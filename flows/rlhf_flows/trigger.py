"""When a served campaign goes on: people have answered, whatever program they answered in.

Nothing is remembered here that a restart could forget. What is new is counted from the watermark of the last finished
round's snapshot, so that answers are news until a round has learnt from them, and whom the campaign waits for stands in
the workspace. Answers are counted here and not by the orchestrator's events, whose triggers ignore what comes while one
is being handled.
"""

from __future__ import annotations

import time
from typing import Literal

from rlhf_core.feedback.news import new_answers
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.session import Session
from rlhf_flows.waits import Wait, answered, wait_path

Learn = Literal["now", "when answered", "not"]
"""What a run begins with: to learn from the answers there are, to wait until those that are missing are there, or,
where the rounds of the pipeline are done and nothing is new, just to ask."""
OUTSIDE_SECONDS = 60.0
"""How often those are looked at who can have answered without a new row in the store: in other programs, by events,
or by letting a deadline pass."""


class Trigger:
    """Looks whether the campaign of `session` has reason to go on: as many new answers as `answers` says, or the end of
    what it waits for.
    """

    def __init__(self, session: Session, store: FeedbackStore, answers: int | None = None) -> None:
        self.session = session
        self.store = store
        self.answers = answers
        self._seen: tuple[object, ...] = ()
        self._again = 0.0
        self._found: Learn | None = None
        self._new = self._tried = 0
        self._learnt = self._gone_on = self._stamp = -1

    def look(self) -> Learn | None:
        """How to go on, if there is reason to. It stays the same until something happens, or `started` is called."""
        state = (self.store.watermark(), self.session.learnt_upto(), self._waiting_since())
        if state != self._seen or time.monotonic() >= self._again:
            self._found = self._look(state[1], state[2])
            self._seen, self._again = state, time.monotonic() + OUTSIDE_SECONDS
        return self._found

    def started(self) -> None:
        """A run has begun because of what was found: it is no reason for a second one, even if the first one fails."""
        if self._found == "when answered":
            self._gone_on = self._stamp
        self._tried, self._seen = self._new, ()

    def turned_away(self) -> None:
        """The run never began, because another one was under way: the reason for it stands."""
        self._tried, self._gone_on, self._seen = 0, -1, ()

    def _look(self, learnt: int, stamp: int) -> Learn | None:
        session, pipeline = self.session, self.session.pipeline
        self._stamp = stamp
        if learnt != self._learnt:  # a round has learnt from what was tried
            self._learnt, self._tried = learnt, 0
        self._new = new_answers(self.store, pipeline.pipeline, learnt)
        if stamp >= 0:
            wait = Wait.model_validate_json(wait_path(session.workspace.folder, pipeline.pipeline).read_text())
            missing, outside = answered(wait, pipeline, session.registry, session.workspace, self.store)
            self._new += outside
            if missing <= 0 and stamp != self._gone_on:
                return "when answered"
        enough = self.answers is not None and self._new - self._tried >= self.answers
        return "now" if enough else None

    def _waiting_since(self) -> int:
        """When the campaign began to wait, in nanoseconds; -1 where it does not."""
        try:
            path = wait_path(self.session.workspace.folder, self.session.pipeline.pipeline)
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return -1
