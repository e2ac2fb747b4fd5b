"""The flows on Prefect: `collect`, `retrain`, and the `loop` of both.

They carry names and numbers only. The work is in the campaign they are given, the results are in the stages' cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlhf_flows.campaign import Campaign


Half = Literal["collect", "retrain"]


def run_loop(
    campaign: Campaign,
    rounds: int,
    begin: Callable[[int], None],
    done: Callable[[], None],
    only: Half | None = None,
) -> None:
    """Run the campaign up to `rounds` as one Prefect flow run with a subflow for each half of a round.

    `begin` is told the number of each round before it starts; `done` is called when the last of `campaign.rounds` is
    complete. With `only`, one half of the last round is done: questions without learning, or learning from what is
    there.
    """
    from prefect import flow

    name = campaign.pipeline.pipeline

    @flow(name="collect", flow_run_name="collect {pipeline} round {round}", validate_parameters=False)
    def collect(pipeline: str, round: int) -> None:
        campaign.collect()

    @flow(name="retrain", flow_run_name="retrain {pipeline} round {round}", validate_parameters=False)
    def retrain(pipeline: str, round: int) -> None:
        campaign.retrain()

    @flow(name="loop", flow_run_name="loop {pipeline}", validate_parameters=False)
    def loop(pipeline: str, rounds: int) -> None:
        begin(0)
        campaign.start()
        done()
        for number in range(1, rounds + 1):
            begin(number)
            half = only if number == rounds else None
            if campaign.pipeline.ask is not None and (half != "retrain" or campaign.is_collected()):
                collect(pipeline, number)
            if half != "collect":
                retrain(pipeline, number)
                done()

    loop(name, rounds)
