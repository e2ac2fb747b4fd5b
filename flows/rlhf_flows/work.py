"""A campaign being worked on: what is open for it, and what is done before, after and between its rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rlhf_core.errors import Waiting
from rlhf_core.feedback.lock import Hold
from rlhf_core.plugins.step import EventName
from rlhf_flows.artifact_store import DamagedArtifact
from rlhf_flows.campaign.events import Listeners
from rlhf_flows.campaign.ledger import CampaignSummary, RoundSummary
from rlhf_flows.campaign.past import Past
from rlhf_flows.campaign.record import CampaignRecord
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.engine.job import tracker_of
from rlhf_flows.engine.results import Results
from rlhf_flows.engine.runners import Runners
from rlhf_flows.engine.scheduler import Memory, Scheduler
from rlhf_flows.promotions import promotions
from rlhf_flows.waits import Wait, wait_path
from rlhf_flows.workspace import write_atomically

if TYPE_CHECKING:
    from rlhf_flows.session import Session

REPAIRS = 10
"""Damaged artifacts that are computed again before a run gives up."""


class Work:
    """The campaign of a session, with its engine. A context, in which the flows' halves of a round are methods.

    Each of them goes on where a damaged artifact is met: that is thrown away, and what made it is computed again.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pipeline = session.pipeline
        self.display = session.display
        self.ledger = session.ledger
        self.artifacts = session.artifacts
        self.place = session.place
        tracker = tracker_of(self.place, self.pipeline.pipeline).prepare()
        self.record = CampaignRecord(self.pipeline, session.registry, session.workspace, self.artifacts, tracker)
        self.listeners = Listeners(
            self.pipeline, session.registry, self.artifacts, self.ledger.campaign, self.display.note
        )
        self.past = Past(self.ledger, self.artifacts, session.workspace.store_url, self.display.note)
        self.memory = Memory(session.registry, Results(self.artifacts))
        self._runners = Runners(self.pipeline)
        self.scheduler = Scheduler(
            self.pipeline, self.memory, self.artifacts, self.place, self.display, self.record, self._runners
        )
        self.campaign = self._campaign()
        self.finished = session.finished_rounds()
        """Rounds that were completed: going through them again waits for nobody."""
        self.hold: Hold | None = None
        """The lock that keeps other machines away."""
        self._stack = ExitStack()
        self._begun = False
        self._asked_in: set[int] = set()
        """Rounds in which somebody was asked on this object."""
        self._stopped: BaseException | None = None

    def __enter__(self) -> Self:
        self.artifacts.clear_drafts()
        wait_path(self.session.workspace.folder, self.pipeline.pipeline).unlink(missing_ok=True)
        self._stack.enter_context(self._runners)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        problem = error or self._stopped
        if problem is None:
            self.record.finish()
            return
        self.record.stopped(problem)
        if not isinstance(problem, Waiting | KeyboardInterrupt):
            what = f"{type(problem).__name__} {str(problem).splitlines()[0] if str(problem) else ''}".strip()
            self.listeners.tell(
                "failed",
                self.campaign.coming,
                f"{self.pipeline.pipeline} failed: {what}",
                what,
                {"error": str(problem)},
            )

    def is_of(self, pipeline: Path, workspace: Path) -> bool:
        """Whether this is work on a pipeline file in a workspace."""
        session = self.session
        return (session.path.absolute(), session.workspace.folder) == (pipeline.absolute(), workspace.absolute())

    def begin(self) -> None:
        """Take over what earlier commands finished, or measure the policy that the campaign starts with. Once."""
        self._repairing(self._begin)

    def collect(self, number: int | None = None) -> None:
        """Ask in a round, by default in the first that is not finished, after those before it.

        Raises Waiting where people have not answered enough yet.
        """
        wanted = number or self.finished + 1

        def ask() -> None:
            self._catch_up(wanted)
            if self.campaign.coming == wanted:
                waits = self._ask(wanted)
                if waits and wanted > self.finished:
                    self._wait(wanted, waits)

        self._repairing(ask)

    def retrain(self, number: int | None = None) -> None:
        """Learn in a round, by default in the first that is not finished, after those before it; from what there is,
        waiting for nobody.
        """
        wanted = number or self.finished + 1

        def learn() -> None:
            self._catch_up(wanted)
            if self.campaign.coming == wanted:
                self._learn(wanted)

        self._repairing(learn)

    def finish(self) -> None:
        """All rounds are done."""
        from rlhf_flows.campaign.reports import campaign_report

        coming = self.campaign.coming

        def report() -> None:
            self._catch_up(coming)
            campaign_report(self.record, self.campaign)

        self._repairing(report)

    def _repairing(self, work: Callable[[], None]) -> None:
        """Do some work of the campaign; again, as far as it is not known, where an artifact turns out to be damaged."""
        for _ in range(REPAIRS):
            try:
                work()
            except DamagedArtifact as damage:
                self._repair(damage)
            else:
                return
        work()

    def _repair(self, damage: DamagedArtifact) -> None:
        """Throw a damaged artifact away, and go back before the round that it is from."""
        self.display.note(f"{damage.what} The stage that made it is computed again.")
        self.artifacts.discard(damage.ref)
        self.past.lost.add(damage.ref)
        self.finished = max(self.finished, self.session.finished_rounds())
        self.memory.finished.clear()
        self.campaign = self._campaign()
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            return
        self.past.compare()
        self._take_over()
        if not self.campaign.rounds:
            self._heading(0, self.pipeline.rounds)
            self._done(self.campaign.start())
            self._take_over()
        self._begun = True

    def _take_over(self) -> None:
        if self.past.take_over(self.campaign):
            # A kill may have come between a round's end and the word of it.
            self._tell(self.campaign.rounds[-1])

    def _catch_up(self, number: int) -> None:
        """Go through the rounds before `number` that earlier commands finished and that do not hold as they are."""
        self._begin()
        while self.campaign.coming < number:
            coming = self.campaign.coming
            self._ask(coming)
            self._learn(coming)

    def _ask(self, number: int) -> dict[str, Waiting]:
        self._heading(number, max(self.pipeline.rounds, number))
        self._asked_in.add(number)
        return self.campaign.collect()

    def _learn(self, number: int) -> None:
        if self.pipeline.ask is None:
            self._heading(number, max(self.pipeline.rounds, number))
        elif not self.campaign.has_asked and (number in self._asked_in or self.campaign.is_collected()):
            self._ask(number)
        elif not self.campaign.has_asked:
            self._heading(number, max(self.pipeline.rounds, number))
        done = self.campaign.retrain()
        self._done(done)
        self.display.table(*results_table(self.campaign.rounds))
        self._tell(done)
        self._take_over()

    def _tell(self, done: RoundSummary) -> None:
        """Tell who listens how a round ended."""
        if not done.round:
            return
        name: EventName = "promoted" if done.promoted else "kept"
        verdict = "was promoted" if done.promoted else "was not promoted: the champion stays"
        text = f"the challenger of round {done.round} of {self.pipeline.pipeline} {verdict} ({'; '.join(done.reasons)})"
        self.listeners.tell(name, done.round, text, done.policy.short, {"reasons": list(done.reasons)})

    def summary(self) -> CampaignSummary:
        """The campaign so far."""
        return CampaignSummary(
            pipeline=self.pipeline.pipeline,
            campaign=self.record.key,
            seed=self.pipeline.seed,
            rounds=tuple(self.campaign.rounds),
        )

    def _campaign(self) -> Campaign:
        session = self.session
        chosen = promotions(session.workspace, self.pipeline.pipeline, self.ledger.campaign)
        return Campaign(self.pipeline, session.registry, self.memory, self.scheduler.run, chosen)

    def _heading(self, number: int, rounds: int) -> None:
        """Say which round begins. Raises Busy where the lock was lost meanwhile: another run may be at work."""
        if self.hold is not None:
            self.hold.expect()
        name = f"round {number} of {rounds}" if number else "start"
        self.display.heading(f"{self.pipeline.pipeline} · {name}", f"seed {self.pipeline.seed} · {_hardware()}")

    def _wait(self, number: int, waits: dict[str, Waiting]) -> None:
        """Note whom the campaign waits for, tell who listens, and raise the first Waiting."""
        graph = self.campaign.compiler.collect(number, self.campaign.standing())
        asked = [node.id for node in graph if node.stage == "answers"]
        questions = self.campaign.memory.finished[f"{number}/questions"].result.ref
        wait = Wait(round=number, questions=questions, annotators=tuple(asked.index(name) for name in waits))
        write_atomically(wait_path(self.session.workspace.folder, self.pipeline.pipeline), wait.model_dump_json())
        self._stopped = next(iter(waits.values()))
        text = f"{self.pipeline.pipeline}, round {number}, is {self._stopped.what}"
        self.listeners.tell("waiting", number, text, questions.short, {"waits_for": list(waits)})
        raise self._stopped

    def _done(self, done: RoundSummary) -> None:
        """Write a finished round down: MLflow, the ledger, the report."""
        from rlhf_flows.campaign.reports import round_report
        from rlhf_flows.engine.visible import show_round

        record, campaign = self.record, self.campaign
        done = done.model_copy(update={"mlflow_run": record.round_run(done.round).run_id})
        campaign.rounds[-1] = done
        record.round_finished(done, done.feedback)
        record.log_graph(done.round, campaign.graph_json())
        self.past.remember(done)
        report = round_report(record, campaign)
        show_round(self.pipeline.pipeline, done, report, record.round_run(done.round))


def results_table(rounds: Sequence[RoundSummary]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table that is shown after each round."""
    columns = {
        "gold score": "gold_score",
        "preferred to start": "preferred_vs_warm_start",
        "win rate vs start": "win_rate_vs_warm_start",
        "KL": "kl",
        "reward acc.": "reward_accuracy",
    }
    shown = {title: name for title, name in columns.items() if any(name in done.metrics for done in rounds)}
    rows = []
    for done in rounds:
        cells = [str(done.metrics[name]) if name in done.metrics else "—" for name in shown.values()]
        verdict = "warm start" if done.round == 0 else "promoted" if done.promoted else "kept champion"
        rows.append([str(done.round), *cells, verdict])
    return ["round", *shown, "gate"], rows


def _hardware() -> str:
    from rlhf_core.lm.loading import best_device

    return str(best_device())
