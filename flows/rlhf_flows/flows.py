"""The flows on Prefect: `collect`, `retrain`, and the `loop` of both.

Each takes JSON parameters and stands alone: `rlhf run` calls them, `prefect deploy` puts them on a work pool. A flow
that is called inside another one's run works on the session that is open; else it opens the pipeline's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Cancelled

from rlhf_core.errors import Waiting
from rlhf_flows.engine.halves import Halves
from rlhf_flows.engine.task import WAITING, error_of
from rlhf_flows.session import work_on
from rlhf_flows.work import Work


def _title() -> str:
    """`loop newsroom`, from the parameters of the run."""
    round_ = flow_run.parameters.get("round")
    name = f"{flow_run.flow_name} {Path(str(flow_run.parameters.get('pipeline', ''))).stem}"
    return f"{name} round {round_}" if round_ is not None else name


@flow(name="collect", flow_run_name=_title, persist_result=False)
def collect(
    pipeline: str,
    workspace: str = ".rlhf",
    overrides: list[str] | None = None,
    site: str | None = None,
    round: int | None = None,
) -> Any:
    """Ask about the current champion: the first half of a round, by default of the coming one.

    Ends in the state Waiting where people have not answered enough yet.
    """
    with work_on(pipeline, workspace, overrides or [], site) as work:
        try:
            work.collect(round)
        except Waiting as error:
            return Cancelled(name=WAITING, message=str(error), data=error)
        return f"asked in round {work.campaign.coming}"


@flow(name="retrain", flow_run_name=_title, persist_result=False)
def retrain(
    pipeline: str,
    workspace: str = ".rlhf",
    overrides: list[str] | None = None,
    site: str | None = None,
    round: int | None = None,
) -> str:
    """Learn from the feedback there is: the second half of a round, by default of the coming one."""
    with work_on(pipeline, workspace, overrides or [], site) as work:
        work.retrain(round)
        done = work.campaign.rounds[-1]
        return f"round {done.round}: {'promoted' if done.promoted else 'kept the champion'}"


@flow(name="loop", flow_run_name=_title, persist_result=False)
def loop(
    pipeline: str,
    workspace: str = ".rlhf",
    overrides: list[str] | None = None,
    site: str | None = None,
    rounds: int | None = None,
) -> Any:
    """The campaign up to `rounds` rounds (by default as many as the pipeline says), going on where it stands.

    Ends in the state Waiting where people have to answer first; the same call goes on when they have.
    """
    with work_on(pipeline, workspace, overrides or [], site) as work:
        parameters = {"pipeline": pipeline, "workspace": workspace, "overrides": overrides or [], "site": site}
        try:
            _rounds(work, parameters, work.pipeline.rounds if rounds is None else rounds)
        except Waiting as error:
            return Cancelled(name=WAITING, message=str(error), data=error)
        work.finish()
    return None


def _rounds(work: Work, parameters: dict[str, Any], rounds: int) -> None:
    work.begin()
    compiler = work.campaign.compiler
    halves = Halves(compiler.start(), work.campaign.memory.finished)
    while (number := work.campaign.coming) <= rounds:
        asking = compiler.collect(number, work.campaign.standing())
        if asking.nodes:
            state = collect(**parameters, round=number, wait_for=halves.before(asking), return_state=True)
            halves.ended(_well(state))
        learning = compiler.retrain(number, work.campaign.standing())
        state = retrain(**parameters, round=number, wait_for=halves.before(learning), return_state=True)
        halves.ended(_well(state))


def _well(state: Any) -> Any:
    """The state of a run that ended well. Raises the error that another one ended with."""
    error = error_of(state)
    if error is not None:
        raise error
    return state
