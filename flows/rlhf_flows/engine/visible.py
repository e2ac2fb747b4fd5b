"""What a stage shows where a user of Prefect looks: lines in its logs, a progress artifact, a table of its results."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_core.tracking.run import TrackedRun
from rlhf_flows.graph import Node
from rlhf_flows.stages.context import StageResult

if TYPE_CHECKING:
    from rlhf_flows.campaign.ledger import RoundSummary

PROGRESS_EVERY = 5.0
"""Seconds between two updates of a progress artifact; stages that are done sooner have none."""


class Shown:
    """One stage in Prefect's interface. Says nothing outside a run of Prefect's (a script, a test)."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._last = time.monotonic()
        self._artifact: Any = None

    def note(self, text: str) -> None:
        """To the task run's logs."""
        if (logger := _run_logger()) is not None:
            logger.warning("%s", text)

    def progress(self, done: int, total: int, note: str) -> None:
        """To the task run's progress artifact, and to its logs, at most every `PROGRESS_EVERY` seconds."""
        if time.monotonic() - self._last < PROGRESS_EVERY or (logger := _run_logger()) is None:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self._last = time.monotonic()
        share = 100.0 * done / max(total, 1)
        text = f"{self.node.title}: {done} of {total} {note}".rstrip()
        logger.info("%s", text)
        if self._artifact is None:
            self._artifact = create_progress_artifact(share, key=self._key("progress"), description=text)
        else:
            update_progress_artifact(self._artifact, progress=share, description=text)

    def done(self, result: StageResult, run: TrackedRun) -> None:
        """What came of it: a table of the metrics, with the way to the stage's MLflow run."""
        logger = _run_logger()
        if logger is None:
            return
        from prefect.artifacts import create_table_artifact, update_progress_artifact

        address = mlflow_page(run)
        if result.summary:
            logger.info("%s", result.summary)
        logger.info("artifact %s", result.ref.uri)
        logger.info("MLflow run %s", address)
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=100.0)
        rows = [{"metric": name, "value": str(metric)} for name, metric in result.metrics.items()]
        words = f"**{self.node.title}**, round {self.node.round}: {result.summary}\n\n[MLflow run]({address})"
        create_table_artifact(rows or [{"metric": "", "value": ""}], key=self._key("results"), description=words)

    def _key(self, what: str) -> str:
        """Prefect's keys hold lower-case letters, digits and dashes; versions of one key show a history."""
        return slug(f"{self.node.pipeline}-{self.node.name}-{what}")


def show_lost(task_run: Any, reason: str) -> None:
    """A task run whose worker died says so, instead of running for ever."""
    from httpx import HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    # Where the worker died before it told Prefect of the run there is nothing to end.
    with get_client(sync_client=True) as client, suppress(ObjectNotFound, HTTPStatusError):
        client.set_task_run_state(task_run, Crashed(message=f"the worker is gone: {reason}"), force=True)


def show_round(pipeline: str, done: RoundSummary, report: Path, run: TrackedRun) -> None:
    """A round's verdict, figures and report, as an artifact of the Prefect run that finished it."""
    if _run_logger() is None:
        return
    from prefect.artifacts import create_markdown_artifact

    verdict = ("promoted" if done.promoted else "kept the champion") if done.round else "warm start"
    lines = [f"# {pipeline}, round {done.round}: {verdict}", *(f"- {reason}" for reason in done.reasons), ""]
    lines += ["| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {metric} |" for name, metric in done.metrics.items()]
    lines += ["", f"[MLflow run, with the report under Artifacts]({mlflow_page(run)})", "", f"Report: `{report}`"]
    create_markdown_artifact("\n".join(lines), key=slug(f"{pipeline}-round"), description=verdict)


def slug(text: str) -> str:
    """`text` as Prefect accepts keys of artifacts."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def mlflow_page(run: TrackedRun) -> str:
    """The page of a run: on the MLflow server, or where `rlhf ui` serves the workspace's database."""
    server = run.tracker.uri if run.tracker.uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{server.rstrip('/')}/{run.path}"


def _run_logger() -> Any:
    """The logger of the Prefect run that this is in; None outside of one."""
    import sys

    if "prefect" not in sys.modules:
        return None
    from prefect import get_run_logger
    from prefect.exceptions import MissingContextError

    try:
        return get_run_logger()
    except MissingContextError:
        return None
