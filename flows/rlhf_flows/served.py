"""The flow that `rlhf serve` deploys. Its runner loads this file by its path, so it stands alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow

from rlhf_core.errors import Busy, Waiting
from rlhf_flows.display import Silent
from rlhf_flows.session import Session
from rlhf_flows.trigger import Learn
from rlhf_flows.zombies import SERVED

COMMAND = [sys.executable, "-c", "from rlhf_flows.cli import main; main()"]
"""The `rlhf` command, in a process of its own: its memory is free again afterwards, and a crash takes nothing along."""
BUSY_SECONDS = 5.0
"""How long to wait for another run that holds the workspace before looking again."""


@flow(name=SERVED, flow_run_name="{name}", validate_parameters=False)
def go_on(name: str, pipeline: str, workspace: str, overrides: list[str], learn: Learn = "when answered") -> Any:
    """Go on with the campaign; when its rounds are done, learn once more from what is new and ask about the result."""
    from prefect.states import Completed

    session = Session.open(Path(pipeline), overrides, Path(workspace), Silent())
    options = ["--workspace", workspace, *(word for override in overrides for word in ("--set", override))]
    complete = session.finished_rounds() >= session.pipeline.rounds
    for step in steps(learn, complete=complete, asks=session.pipeline.ask is not None):
        command = [*COMMAND, step, pipeline, *options]
        # Another pipeline may be at work in the same workspace.
        while (code := subprocess.run(command, check=False).returncode) == Busy.exit_code:
            time.sleep(BUSY_SECONDS)
        if code == Waiting.exit_code:
            return Completed(name="Waiting", message="people have questions to answer")
        if code:
            raise RuntimeError(f"`rlhf {step} {pipeline}` ended with exit code {code}; its output says why")
    return None


def steps(learn: Learn, *, complete: bool, asks: bool) -> list[str]:
    """The commands of a run. Once all rounds are done (`complete`), learning again is a reason's business."""
    if complete:
        work = [] if learn == "not" and asks else ["retrain"]
    else:
        work = ["retrain", "run"] if learn == "now" else ["run"]
    return [*work, "collect"] if asks else work
