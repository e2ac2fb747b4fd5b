"""`rlhf serve`: a pipeline that goes on by itself, on a schedule and when people have answered enough."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_core.errors import RlhfError, WorkspaceError
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.server import PrivateServer
from rlhf_flows.workspace import Workspace, write_atomically
from rlhf_flows.zombies import SERVED, end_served, watch_heartbeats

POLL_SECONDS = 5.0
"""How often the store is asked for new answers: one cheap query."""


@dataclass
class Trigger:
    """Whether people have answered enough since the last time for the campaign to go on.

    Enough is `answers` new ones, or (always) the last answer that anybody waits for. What was seen is kept in `seen`,
    so that a server started anew counts on from there. Answers are counted here and not by the orchestrator's events,
    whose triggers ignore what comes while one is being handled.
    """

    store: FeedbackStore
    seen: Path
    answers: int | None = None
    _watermark: int = -1

    def is_due(self) -> bool:
        """Look; True once for each time enough came together."""
        watermark = self.store.watermark()
        if watermark == self._watermark:
            return False
        self._watermark = watermark
        people = self.store.counts().sources["person"]
        new = people - self._counted()
        progress = QuestionQueue(self.store).progress()
        complete = progress.wanted > 0 and progress.answered >= progress.wanted
        if new > 0 and (complete or (self.answers is not None and new >= self.answers)):
            write_atomically(self.seen, json.dumps({"people": people}))
            return True
        return False

    def _counted(self) -> int:
        return int(json.loads(self.seen.read_text())["people"]) if self.seen.exists() else 0


def serve_pipeline(
    workspace: Workspace,
    pipeline: Path,
    name: str,
    overrides: Sequence[str],
    *,
    cron: str | None,
    answers: int | None,
    say: Callable[[str], None],
) -> None:
    """Deploy and run until Ctrl-C. Raises WorkspaceError where another process serves this pipeline already."""
    from filelock import FileLock, Timeout

    lock = FileLock(workspace.folder / f"serve-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise WorkspaceError(f"another process serves {name} already.", where=str(workspace.folder)) from error
    with (
        lock,
        PrivateServer(workspace) as server,
        FeedbackStore.open(workspace.store_url) as store,
        server.answering(),
    ):
        deployment = _deployment(workspace, pipeline, name, overrides, cron)
        end_served(name)
        if not server.private:
            watch_heartbeats()
        trigger = Trigger(store, workspace.folder / f"serve-{name}.json", answers)
        threading.Thread(target=_watch, args=(name, trigger, say), daemon=True).start()
        say(f"serving {name}" + (f", on {cron}" if cron else "") + (f", every {answers} answers" if answers else ""))
        from prefect import serve

        # Prefect would pause the schedule at the end, and nothing would wake it at the next start.
        serve(deployment, pause_on_shutdown=False, print_starting_message=False, limit=1)


def _deployment(workspace: Workspace, pipeline: Path, name: str, overrides: Sequence[str], cron: str | None) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    from rlhf_flows.served import go_on

    parameters = {"name": name, "pipeline": str(pipeline.absolute()), "workspace": str(workspace.folder)}
    return go_on.to_deployment(
        name,
        cron=cron,
        parameters={**parameters, "overrides": list(overrides)},
        # One run of a pipeline at a time; what a run that is turned away would have learnt, the next one learns.
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        description=f"Goes on with the campaign of {pipeline.name}.",
    )


def _watch(name: str, trigger: Trigger, say: Callable[[str], None]) -> None:
    """Start a run at once, so that a campaign begins or goes on, and one whenever enough was answered."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    started = False
    while True:
        try:
            if not started or trigger.is_due():
                with get_client(sync_client=True) as client:
                    deployment = client.read_deployment_by_name(f"{SERVED}/{name}")
                    client.create_flow_run_from_deployment(deployment.id)
                say("people have answered: going on" if started else "starting")
                started = True
        except ObjectNotFound:
            pass  # not deployed yet
        except RlhfError as error:
            print(error, file=sys.stderr)  # noqa: T201  (the store may be back at the next look)
        time.sleep(POLL_SECONDS if started else 0.5)
