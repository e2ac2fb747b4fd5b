"""Reports of rounds and campaigns, gathered from artifacts and written to the workspace and to MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf_core.plugins import Decision
from rlhf_core.report import campaign_headline, pages
from rlhf_core.report.data import About, CalibrationBin, FeedbackSummary, RoundData, SampleRow
from rlhf_flows.campaign.ledger import RoundSummary
from rlhf_flows.campaign.record import CampaignRecord
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.engine.stage_record import curve_name, read_curves
from rlhf_flows.stages.context import StageResult
from rlhf_flows.stages.tune import trial_rows
from rlhf_flows.workspace import write_atomically

SHOWN_STAGES = ("warm_start", "reward", "optimize")
"""Stages whose training curves are worth a figure."""


def round_report(record: CampaignRecord, campaign: Campaign) -> Path:
    """Write the report of the last round, beside the earlier ones, and attach it to the round's MLflow run.

    Of the earlier rounds only the champion's and the first one's files are read, however many there are.
    """
    last = campaign.rounds[-1]
    path = folder(record) / f"round-{last.round}.html"
    champion = campaign.rounds[campaign.champion_before(last.round)] if last.round else None
    page = pages.round_report(
        _about(record),
        _data(record, last),
        champion=_data(record, champion) if champion is not None else None,
        first=_data(record, campaign.rounds[0]),
    )
    write_atomically(path, page)
    record.round_run(last.round).log_artifact(path, "report")
    record.run.describe(campaign_headline([_figures(done) for done in campaign.rounds]))
    return path


def campaign_report(record: CampaignRecord, campaign: Campaign) -> Path:
    """Write the report of all rounds and attach it to the campaign's MLflow run."""
    path = folder(record) / "campaign.html"
    rounds = [_data(record, done) for done in campaign.rounds]
    write_atomically(path, pages.campaign_report(_about(record), rounds))
    record.run.log_artifact(path, "report")
    return path


def folder(record: CampaignRecord) -> Path:
    """Where the campaign's reports lie."""
    return record.workspace.folder / "reports" / f"{record.pipeline.pipeline}-{record.key[:8]}"


def _about(record: CampaignRecord) -> About:
    return About(
        pipeline=record.pipeline.pipeline,
        seed=record.pipeline.seed,
        campaign=record.key,
        plugins=record.plugins(),
        mlflow=record.run.path,
    )


def _figures(done: RoundSummary) -> RoundData:
    """A round by its figures alone, for which no artifact is read."""
    decision = Decision(promote=done.promoted, reasons=done.reasons) if done.round else None
    return RoundData(round=done.round, metrics=done.metrics, decision=decision)


def _data(record: CampaignRecord, done: RoundSummary) -> RoundData:
    artifacts = record.artifacts
    tables: dict[str, list[dict[str, Any]]] = {}
    for ref in done.evaluations:
        tables |= json.loads((artifacts.path(ref) / "tables.json").read_text())
    heard = artifacts.path(done.reward) / "annotators.json" if done.reward else None
    if heard is not None and heard.exists() and (rows := json.loads(heard.read_text())):
        tables["reward_model_by_annotator"] = rows
    if done.tuning is not None and record.pipeline.tune is not None:
        tables["reward_model_trials"] = trial_rows(artifacts.path(done.tuning), record.pipeline.tune.metric)
    samples = [SampleRow.of(row) for row in tables.pop("samples", [])]
    decision = Decision(promote=done.promoted, reasons=done.reasons) if done.round else None
    stages = {name.partition("/")[2]: each.key for name, each in done.stages.items()}
    snapshot = done.result(f"{done.round}/snapshot") if done.round else None
    return RoundData(
        round=done.round,
        metrics={**(snapshot.metrics if snapshot else {}), **done.metrics},
        decision=decision,
        curves={
            name: read_curves(artifacts.read_text(curve_name(stages[name]))) for name in SHOWN_STAGES if name in stages
        },
        calibration=_calibration(record, done),
        samples=samples,
        feedback=_feedback(snapshot) if snapshot else None,
        tables=tables,
        mlflow=record.tracker.path(done.mlflow_run) if done.mlflow_run else record.round_run(done.round).path,
        snapshot=snapshot.ref.sha256 if snapshot else "",
        policy=done.policy.sha256,
    )


def _calibration(record: CampaignRecord, done: RoundSummary) -> list[CalibrationBin]:
    path = record.artifacts.path(done.reward) / "calibration.json" if done.reward else None
    if path is None or not path.exists():
        return []
    return [
        CalibrationBin(row["low"], row["high"], row["predicted"], row["stated"], int(row["pairs"]))
        for row in json.loads(path.read_text())
    ]


def _feedback(snapshot: StageResult) -> FeedbackSummary:
    info = snapshot.info
    annotators, kinds = info["annotators"], info["kinds"]
    assert isinstance(annotators, dict) and isinstance(kinds, dict)
    counts = {str(name): int(str(number)) for name, number in kinds.items()}
    return FeedbackSummary(
        questions=int(str(info["questions"])),
        answers=int(str(info["rows"])),
        annotators={str(name): int(str(number)) for name, number in annotators.items()},
        kinds=counts,
        agreement=snapshot.metrics.get("krippendorff_alpha"),
        skipped=counts.get("skip", 0),
    )
