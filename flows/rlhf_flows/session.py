"""One command's work on a pipeline: open the workspace, check, run the campaign, say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_flows.campaign import Campaign, Round
from rlhf_flows.display import Display
from rlhf_flows.dry_run import DryRun, Planned
from rlhf_flows.engine import Engine
from rlhf_flows.flows import Half
from rlhf_flows.promotions import promotions
from rlhf_flows.record import CampaignRecord, CampaignSummary, RoundSummary, campaign_key, summary_path
from rlhf_flows.server import PrivateServer
from rlhf_flows.waits import wait_path
from rlhf_flows.workspace import Workspace, write_atomically
from rlhf_flows.zombies import end_leftovers


@dataclass
class Session:
    """A pipeline in a workspace."""

    pipeline: Pipeline
    registry: Registry
    workspace: Workspace
    display: Display

    @classmethod
    def open(cls, path: Path, overrides: Sequence[str], workspace: Path, display: Display) -> Session:
        """Read and check the pipeline file; raises PipelineError with everything that doesn't fit."""
        from rlhf_core.pipeline.file import PipelineProblems, load_pipeline
        from rlhf_core.pipeline.wiring import check

        registry = Registry()
        loaded = load_pipeline(path, overrides, registry)
        problems = check(loaded, registry)
        if problems:
            raise PipelineProblems(problems)
        return cls(loaded.pipeline, registry, Workspace.open(workspace), display)

    def finished_rounds(self) -> int:
        """Number of rounds that earlier commands completed, the warm start not counted."""
        path = summary_path(self.workspace, self.pipeline)
        return len(CampaignSummary.model_validate_json(path.read_text()).rounds) - 1 if path.exists() else 0

    def learnt_upto(self) -> int:
        """The store's watermark when the last finished round took its snapshot; 0 before there is one."""
        path = summary_path(self.workspace, self.pipeline)
        rounds = CampaignSummary.model_validate_json(path.read_text()).rounds if path.exists() else ()
        learnt = [done.snapshot for done in rounds if done.snapshot is not None]
        return Snapshot.read(self.workspace.artifacts / learnt[-1].uri).watermark if learnt else 0

    def plan(self) -> list[Planned]:
        """What `run` would do."""
        from rlhf_flows.server import configure

        configure(self.workspace)
        engine = DryRun(self.pipeline, self.registry, self.workspace)
        campaign = self._campaign(engine)
        campaign.start()
        for _ in range(self.pipeline.rounds):
            campaign.collect()
            campaign.retrain()
        return engine.plan

    def run(self, only: Half | None = None) -> CampaignSummary:
        """Run the campaign, or go on with it where an earlier run stopped.

        With `only`, one half of one more round than were finished so far, whatever the pipeline's number of rounds.
        """
        with self.workspace.held(f"pipeline {self.pipeline.pipeline}"), PrivateServer(self.workspace) as server:
            from rlhf_core.tracking.tracker import Tracker
            from rlhf_flows.artifacts import ArtifactStore
            from rlhf_flows.engine import PrefectEngine

            ArtifactStore(self.workspace.artifacts).clear_drafts()
            tracker = Tracker.open(self.workspace.folder, self.pipeline.pipeline, self.workspace.mlflow_uri).prepare()
            import_the_heavy()
            record = CampaignRecord(self.pipeline, self.registry, self.workspace, tracker)
            with server.answering():
                end_leftovers(self.workspace.folder)
                engine = PrefectEngine(self.pipeline, self.registry, self.workspace, self.display, record)
                return self._run_campaign(self._campaign(engine), record, only)

    def _campaign(self, engine: Engine) -> Campaign:
        chosen = promotions(self.workspace, self.pipeline.pipeline, campaign_key(self.pipeline))
        return Campaign(self.pipeline, self.registry, engine, chosen=chosen)

    def _run_campaign(self, campaign: Campaign, record: CampaignRecord, only: Half | None) -> CampaignSummary:
        from rlhf_flows.flows import run_loop
        from rlhf_flows.reporting import campaign_report, round_report

        summaries: list[RoundSummary] = []
        pipeline = self.pipeline
        finished = self.finished_rounds()
        rounds = pipeline.rounds if only is None else max(1, finished + 1)

        def begin(number: int) -> None:
            name = f"round {number} of {rounds}" if number else "start"
            self.display.heading(f"{pipeline.pipeline} · {name}", f"seed {pipeline.seed} · {_hardware()}")

        def done() -> None:
            finished = campaign.rounds[-1]
            summaries.append(_summary(finished))
            record.round_finished(summaries, finished.snapshot)
            round_report(record, self.workspace, campaign)
            if finished.number:
                self.display.table(*results_table(summaries))

        waits = wait_path(self.workspace.folder, pipeline.pipeline)
        waits.unlink(missing_ok=True)
        try:
            run_loop(campaign, self.workspace.folder, rounds, begin, done, only, finished)
            campaign_report(record, self.workspace, campaign)
        except BaseException as error:
            record.stopped(error)
            if campaign.waits_for is not None:
                write_atomically(waits, campaign.waits_for.model_dump_json())
            raise
        record.finish()
        return CampaignSummary(
            pipeline=pipeline.pipeline, campaign=record.key, seed=pipeline.seed, rounds=tuple(summaries)
        )


def _summary(done: Round) -> RoundSummary:
    return RoundSummary(
        round=done.number,
        promoted=done.promoted,
        reasons=done.reasons,
        metrics=dict(done.contender.metrics),
        policy=done.contender.policy,
        parent=done.parent,
        reward=done.reward,
        snapshot=done.snapshot.ref if done.snapshot else None,
        evaluations=done.evaluations,
    )


def results_table(summaries: Sequence[RoundSummary]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table that is shown after each round."""
    columns = {
        "gold score": "gold_score",
        "preferred to start": "preferred_vs_warm_start",
        "win rate vs start": "win_rate_vs_warm_start",
        "KL": "kl",
        "reward acc.": "reward_accuracy",
    }
    shown = {title: name for title, name in columns.items() if any(name in s.metrics for s in summaries)}
    rows = []
    for summary in summaries:
        cells = [str(summary.metrics[name]) if name in summary.metrics else "—" for name in shown.values()]
        verdict = "warm start" if summary.round == 0 else "promoted" if summary.promoted else "kept champion"
        rows.append([str(summary.round), *cells, verdict])
    return ["round", *shown, "gate"], rows


def _hardware() -> str:
    from rlhf_core.lm.loading import best_device

    return str(best_device())


def import_the_heavy() -> None:
    """Import what every stage needs while the servers start in their own threads and processes."""
    import datasets
    import torch  # noqa: F401
    import transformers

    datasets.disable_progress_bars()  # the display has its own
    transformers.utils.logging.disable_progress_bar()
