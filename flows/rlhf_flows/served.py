"""The flow that `rlhf serve` deploys. Its runner loads this file by its path, so it stands alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from rlhf_core.errors import Busy, Waiting
from rlhf_flows.display import Display
from rlhf_flows.engine.task import WAITING, error_of
from rlhf_flows.flows import collect, loop, retrain
from rlhf_flows.orphaned_runs import SERVED
from rlhf_flows.session import Session
from rlhf_flows.trigger import Learn

BUSY_SECONDS = 5.0
"""How long to wait for another run that holds the workspace before looking again."""


@flow(name=SERVED, flow_run_name="{name}", validate_parameters=False)
def go_on(name: str, pipeline: str, workspace: str, overrides: list[str], learn: Learn = "when answered") -> Any:
    """Go on with the campaign; when its rounds are done, learn once more from what is new and ask about the result.

    Prefect runs it in a process of its own, whose memory is free again afterwards.
    """
    from prefect.states import Cancelled

    session = Session.open(Path(pipeline), overrides, Path(workspace), Display())
    complete = session.finished_rounds() >= session.pipeline.rounds
    flows = {"retrain": retrain, "run": loop, "collect": collect}
    for step in steps(learn, complete=complete, asks=session.pipeline.ask is not None):
        while True:
            state = flows[step](pipeline=pipeline, workspace=workspace, overrides=overrides, return_state=True)
            error = error_of(state)
            if not isinstance(error, Busy):
                break
            # Another pipeline may be at work in the same workspace.
            time.sleep(BUSY_SECONDS)
        if isinstance(error, Waiting):
            return Cancelled(name=WAITING, message=str(error))
        if error is not None:
            raise error
    return None


def steps(learn: Learn, *, complete: bool, asks: bool) -> list[str]:
    """The flows of a run. Once all rounds are done (`complete`), learning again is a reason's business."""
    if complete:
        work = [] if learn == "not" and asks else ["retrain"]
    else:
        work = ["retrain", "run"] if learn == "now" else ["run"]
    return [*work, "collect"] if asks else work
