"""Runs whose process was killed, which Prefect's books would show as Running for ever.

Two who look after them: the next run of the same workspace, which knows that it is alone (`end_leftovers`,
`end_served`), and, on a server of its own, an automation that needs nobody to come (`watch_heartbeats`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FLOWS = ("loop", "collect", "retrain")
SERVED = "retrain-on-feedback"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")
AUTOMATION = "rlhf: runs without a heartbeat have crashed"
MISSED = 3
"""Heartbeats that a run may miss."""


def end_leftovers(workspace: Path, flows: Sequence[str] = FLOWS) -> int:
    """End what earlier processes left under way of `flows` in `workspace`; how many runs. Whoever calls holds the
    workspace.
    """
    from prefect.client.schemas.filters import FlowFilter

    named = FlowFilter.model_validate({"name": {"any_": list(flows)}})
    return _crash(
        lambda run: run.parameters.get("workspace") == str(workspace), "its process was stopped", flow_filter=named
    )


def end_served(name: str) -> int:
    """End what an earlier `rlhf serve` of the pipeline left under way: it holds the only place. How many runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{SERVED}/{name}")
        except ObjectNotFound:
            return 0
    ours = DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}})
    return _crash(lambda run: True, "its server was stopped", deployment_filter=ours)


def _crash(is_ours: Callable[[Any], bool], why: str, **filters: Any) -> int:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    under_way = FlowRunFilter.model_validate({"state": {"type": {"any_": list(UNDER_WAY)}}})
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs(flow_run_filter=under_way, **filters) if is_ours(run)]
        for run in runs:
            client.set_flow_run_state(run.id, Crashed(message=why), force=True)
    return len(runs)


def watch_heartbeats() -> None:
    """Let the server end runs whose heartbeat stops; once there, the automation stays. For servers that outlive us."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(AUTOMATION):
            return
    heartbeat = "prefect.flow-run.heartbeat"
    ends = (f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Waiting"))
    Automation(
        name=AUTOMATION,
        description="A run that sent a heartbeat and then neither another one nor its end was killed.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=MISSED * int(PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() or 180)),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: its process was stopped")],
    ).create()
