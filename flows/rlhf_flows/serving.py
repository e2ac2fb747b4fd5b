"""`rlhf serve`: a pipeline that goes on by itself, on a schedule and when people have answered enough."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf_core.errors import WorkspaceError
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.orphaned_runs import SERVED, UNDER_WAY, end_served, watch_heartbeats
from rlhf_flows.server import PrivateServer
from rlhf_flows.session import Session
from rlhf_flows.trigger import Learn, Trigger

POLL_SECONDS = 5.0
"""How often the store is asked for new answers: one cheap query."""


def serve_pipeline(
    session: Session,
    path: Path,
    overrides: Sequence[str],
    *,
    cron: str | None,
    answers: int | None,
    say: Callable[[str], None],
) -> None:
    """Deploy the pipeline and run until Ctrl-C.

    Raises WorkspaceError where another process serves this pipeline already.
    """
    from filelock import FileLock, Timeout

    workspace, name = session.workspace, session.pipeline.pipeline
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
        before = _deployed(name)
        parameters: dict[str, Any] = {"name": name, "pipeline": str(path.absolute()), "overrides": list(overrides)}
        parameters["workspace"] = str(workspace.folder)
        deployment = _deployment(name, parameters, cron, paused=before is not None and before.paused)
        end_served(name)
        if not server.private:
            watch_heartbeats()
        watcher = Watcher(parameters, Trigger(session, store, answers), say)
        threading.Thread(target=watcher.watch, daemon=True).start()
        say(f"serving {name}" + (f", on {cron}" if cron else "") + (f", every {answers} answers" if answers else ""))
        from prefect import serve

        # Prefect would pause the schedule at the end, and nothing would wake it at the next start.
        serve(deployment, pause_on_shutdown=False, print_starting_message=False, limit=1)


def _deployment(name: str, parameters: dict[str, Any], cron: str | None, *, paused: bool) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    from rlhf_flows.served import go_on

    return go_on.to_deployment(
        name,
        cron=cron,
        paused=paused,  # whoever paused it says when it goes on
        parameters=parameters,
        # One run of a pipeline at a time; what a run that is turned away would have learnt, the next one learns.
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        description=f"Goes on with the campaign of {parameters['pipeline']}.",
    )


def _deployed(name: str) -> Any:
    """The deployment as the server knows it; None before it does."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(f"{SERVED}/{name}")
        except ObjectNotFound:
            return None


class Watcher:
    """Starts a run at once, so that a campaign begins or goes on, and one whenever there is reason to.

    One at a time, and none while the deployment is paused: a reason stands until a run was started for it.
    """

    def __init__(self, parameters: dict[str, Any], trigger: Trigger, say: Callable[[str], None]) -> None:
        self.name = parameters["name"]
        self.parameters = parameters
        self.trigger = trigger
        self.say = say
        self._started = False
        self._last: Any = None
        self._trouble = ""

    def watch(self) -> None:
        """Look again and again, whatever goes wrong: the store or the server may be back at the next look."""
        while True:
            try:
                self.look()
                self._trouble = ""
            except Exception as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    print(f"{self.name}: {error}", file=sys.stderr)  # noqa: T201
            time.sleep(POLL_SECONDS if self._started else 0.5)

    def look(self) -> None:
        """Look once, and start a run where one is due."""
        deployment = _deployed(self.name)
        if deployment is None or deployment.paused or self._is_under_way(deployment.id):
            return
        learn = self.trigger.look()
        if learn is None and self._started:
            return
        self._start(deployment.id, learn or "not")
        self.trigger.started()
        self.say("people have answered: going on" if learn else "starting")
        self._started = True

    def _start(self, deployment_id: Any, learn: Learn) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            # All of them: the deployment may still be the one of an earlier start.
            run = client.create_flow_run_from_deployment(deployment_id, parameters={**self.parameters, "learn": learn})
            self._last = run.id

    def _is_under_way(self, deployment_id: Any) -> bool:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter

        ours = DeploymentFilter.model_validate({"id": {"any_": [deployment_id]}})
        under_way = FlowRunFilter.model_validate({"state": {"type": {"any_": list(UNDER_WAY)}}})
        with get_client(sync_client=True) as client:
            if self._last is not None:
                run = client.read_flow_run(self._last)
                if run.state is None or not run.state.is_final():
                    return True
                if run.state.is_cancelled() and run.start_time is None:
                    self.trigger.turned_away()
                self._last = None
            return bool(client.read_flow_runs(flow_run_filter=under_way, deployment_filter=ours, limit=1))
