"""The flows on Prefect: `collect`, `retrain`, and the `loop` of both.

They carry names and numbers only. The work is in the campaign they are given, the results are in the stages' cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from rlhf_core.errors import Waiting
from rlhf_flows.waiting import as_waiting_state, waits_as_state

if TYPE_CHECKING:
    from pathlib import Path

    from rlhf_flows.campaign import Campaign


Half = Literal["collect", "retrain"]


def run_loop(
    campaign: Campaign,
    workspace: Path,
    rounds: int,
    begin: Callable[[int], None],
    done: Callable[[], None],
    only: Half | None = None,
    finished: int = 0,
) -> None:
    """Run the campaign up to `rounds` as one Prefect flow run with a subflow for each half of a round.

    `workspace` stands among the parameters of each run, so that what a kill left can be told apart (`zombies`).
    `begin` is told the number of each round before it starts; `done` is called when the last of `campaign.rounds` is
    complete. With `only`, one half of the last round is done: questions without learning, or learning from what is
    there. Only a round that is not among the `finished` ones waits for people: Waiting is raised where they have to
    answer first; everything so far is kept, and the same call goes on.
    """
    from prefect import flow

    name = campaign.pipeline.pipeline
    waiting: list[Waiting] = []

    @flow(name="collect", flow_run_name="collect {pipeline} round {round}", validate_parameters=False)
    @as_waiting_state(waiting)
    def collect(pipeline: str, workspace: str, round: int, wait: bool) -> None:
        campaign.collect(wait)

    @flow(name="retrain", flow_run_name="retrain {pipeline} round {round}", validate_parameters=False)
    def retrain(pipeline: str, workspace: str, round: int) -> None:
        campaign.retrain()

    @flow(name="loop", flow_run_name="loop {pipeline}", validate_parameters=False)
    @as_waiting_state(waiting)
    def loop(pipeline: str, workspace: str, rounds: int) -> None:
        begin(0)
        campaign.start()
        done()
        for number in range(1, rounds + 1):
            begin(number)
            half = only if number == rounds else None
            if campaign.pipeline.ask is not None and (half != "retrain" or campaign.is_collected()):
                with waits_as_state(waiting):
                    collect(pipeline, workspace, number, wait=number > finished and half != "retrain")
            if half != "collect":
                retrain(pipeline, workspace, number)
                done()

    with waits_as_state(waiting):
        loop(name, str(workspace), rounds)
