"""A campaign being worked on: what is open for it, and what is done before, after and between its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rlhf_core.errors import Waiting
from rlhf_core.feedback.changes import Position
from rlhf_core.feedback.lock import Hold
from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.artifact_store import DamagedArtifact
from rlhf_flows.campaign.events import Listeners
from rlhf_flows.campaign.ledger import CampaignSummary, RoundSummary
from rlhf_flows.campaign.record import CampaignRecord
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.engine.job import Place, tracker_of
from rlhf_flows.engine.results import Results
from rlhf_flows.engine.runners import Runners
from rlhf_flows.engine.scheduler import Memory, Scheduler
from rlhf_flows.promotions import promotions
from rlhf_flows.waits import Wait, wait_path
from rlhf_flows.workspace import write_atomically

if TYPE_CHECKING:
    from rlhf_flows.session import Session


class Work:
    """The campaign of a session, with its engine. A context, in which the flows' halves of a round are methods."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pipeline = session.pipeline
        self.display = session.display
        self.ledger = session.ledger
        self.artifacts = session.artifacts
        self.place = Place(workspace=str(session.workspace.folder), artifacts=session.workspace.artifacts_root)
        tracker = tracker_of(self.place, self.pipeline.pipeline).prepare()
        self.record = CampaignRecord(self.pipeline, session.registry, session.workspace, self.artifacts, tracker)
        self.listeners = Listeners(
            self.pipeline, session.registry, self.artifacts, self.ledger.campaign, self.display.note
        )
        self.campaign = self._campaign()
        self.finished = session.finished_rounds()
        """Rounds that earlier commands completed: going through them again waits for nobody."""
        self.hold: Hold | None = None
        """The lock that keeps other machines away."""
        self._stack = ExitStack()
        self._since: Position | None = None
        self._begun = False
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
        if self._begun:
            return
        self._begun = True
        index = self.ledger.index()
        with FeedbackStore.open(self.session.workspace.store_url) as store:
            self._since = store.position()
            untouched = index.verified_upto is not None and not store.changed_since(
                Position(*index.verified_upto), upto=index.learnt_upto
            )
        if untouched:
            self.campaign.recall(self.ledger)
        if not self.campaign.rounds:
            self._heading(0, self.pipeline.rounds)
            self._done(self.campaign.start())

    def catch_up(self) -> None:
        """Go through the rounds that earlier commands finished and that do not hold as they are."""
        self.begin()
        while self.campaign.coming <= self.finished:
            self.collect(self.campaign.coming)
            self.retrain(self.campaign.coming)

    def collect(self, number: int | None) -> None:
        """Ask in the coming round. Raises Waiting where people have not answered enough yet, unless this round was
        finished before. `number` is the round where a loop asks for it; without one, earlier rounds come first.
        """
        if number is None:
            self.catch_up()
        coming = self.campaign.coming
        self._heading(coming, max(self.pipeline.rounds, coming))
        waits = self.campaign.collect()
        if waits and coming > self.finished:
            self._wait(coming, waits)

    def retrain(self, number: int | None) -> None:
        """Learn in the coming round. By itself (without a `number`), from what there is, waiting for nobody."""
        if number is None:
            self.catch_up()
            self._heading(self.campaign.coming, max(self.pipeline.rounds, self.campaign.coming))
            if self.pipeline.ask is not None and self.campaign.is_collected():
                self.campaign.collect()
        elif self.pipeline.ask is None:
            self._heading(self.campaign.coming, max(self.pipeline.rounds, self.campaign.coming))
        done = self.campaign.retrain()
        self._done(done)
        self.display.table(*results_table(self.campaign.rounds))
        name, reasons = ("promoted" if done.promoted else "kept"), "; ".join(done.reasons)
        verdict = "was promoted" if done.promoted else "was not promoted: the champion stays"
        text = f"the challenger of round {done.round} of {self.pipeline.pipeline} {verdict} ({reasons})"
        self.listeners.tell(name, done.round, text, done.policy.short, {"reasons": list(done.reasons)})  # type: ignore[arg-type]

    def repair(self, damage: DamagedArtifact) -> None:
        """Forget a damaged artifact, so that its stage is computed again, and look at every finished stage anew."""
        self.display.note(f"{damage.what} Its stage is computed again.")
        self.artifacts.discard(damage.ref)
        self.ledger.forget_verified()
        self.campaign = self._campaign()
        self._begun = False

    def finish(self) -> None:
        """All rounds are done."""
        from rlhf_flows.campaign.reports import campaign_report

        campaign_report(self.record, self.campaign)

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
        memory = Memory(session.registry, Results(self.artifacts))
        self._runners = Runners(self.pipeline)
        self.scheduler = Scheduler(
            self.pipeline, memory, self.artifacts, self.place, self.display, self.record, self._runners
        )
        chosen = promotions(session.workspace, self.pipeline.pipeline, self.ledger.campaign)
        return Campaign(self.pipeline, session.registry, memory, self.scheduler.run, chosen)

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
        snapshot = done.result(f"{done.round}/snapshot") if done.round else None
        record.round_finished(done, snapshot)
        record.log_graph(done.round, campaign.graph_json())
        self._remember(done)
        report = round_report(record, campaign)
        show_round(self.pipeline.pipeline, done, report, record.round_run(done.round))

    def _remember(self, done: RoundSummary) -> None:
        """Into the ledger. A kill must not make a campaign shorter: later rounds stay where this one came out as it
        did before.
        """
        before, index = self.ledger.round(done.round), self.ledger.index()
        same = before is not None and before.policy == done.policy
        rounds = max(index.rounds, done.round + 1) if same else done.round + 1
        last = rounds == done.round + 1
        learnt = index.learnt_upto
        if last and done.snapshot is not None:
            learnt = Snapshot.read(self.artifacts.path(done.snapshot)).watermark
        assert self._since is not None
        self.ledger.finish(done, learnt_upto=learnt, rounds=rounds, verified_upto=tuple(self._since) if last else None)


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
