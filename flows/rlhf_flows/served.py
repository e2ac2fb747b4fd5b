"""The flow that `rlhf serve` deploys. Its runner loads this file by its path, so it stands alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import flow

from rlhf_core.errors import Waiting
from rlhf_flows.display import Silent
from rlhf_flows.session import Session
from rlhf_flows.zombies import SERVED

COMMAND = [sys.executable, "-c", "from rlhf_flows.cli import main; main()"]
"""The `rlhf` command, in a process of its own: its memory is free again afterwards, and a crash takes nothing along."""


@flow(name=SERVED, flow_run_name="{name}", validate_parameters=False)
def go_on(name: str, pipeline: str, workspace: str, overrides: list[str]) -> Any:
    """Go on with the campaign; when its rounds are done, learn once more from what is new and ask about the result."""
    from prefect.states import Completed

    session = Session.open(Path(pipeline), overrides, Path(workspace), Silent())
    options = ["--workspace", workspace, *(word for override in overrides for word in ("--set", override))]
    complete = session.finished_rounds() >= session.pipeline.rounds
    for step in ("retrain", "collect") if complete and session.pipeline.ask is not None else ("run",):
        code = subprocess.run([*COMMAND, step, pipeline, *options], check=False).returncode
        if code == Waiting.exit_code:
            return Completed(name="Waiting", message="people have questions to answer")
        if code:
            raise RuntimeError(f"`rlhf {step} {pipeline}` ended with exit code {code}; its output says why")
    return None
