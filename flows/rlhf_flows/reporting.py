"""Reports of rounds and campaigns, gathered from artifacts and written to the workspace and to MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf_core.plugins import Decision
from rlhf_core.report import campaign_headline, pages
from rlhf_core.report.data import About, CalibrationBin, FeedbackSummary, RoundData, SampleRow
from rlhf_flows.campaign import Campaign, Round
from rlhf_flows.record import CampaignRecord, read_curves
from rlhf_flows.stage import StageResult
from rlhf_flows.steps.tune import trial_rows
from rlhf_flows.workspace import Workspace, write_atomically

SHOWN_STAGES = ("warm_start", "reward", "optimize")
"""Stages whose training curves are worth a figure."""


def round_report(record: CampaignRecord, workspace: Workspace, campaign: Campaign) -> Path:
    """Write the report of the last round, beside the earlier ones, and attach it to the round's MLflow run."""
    last = campaign.rounds[-1]
    path = folder(record, workspace) / f"round-{last.number}.html"
    rounds = [_data(record, workspace, done) for done in campaign.rounds]
    champion = rounds[campaign.champion_before(last.number).number] if last.number else None
    write_atomically(path, pages.round_report(_about(record), rounds[-1], champion=champion, first=rounds[0]))
    record.round_run(last.number).log_artifact(path, "report")
    record.run.describe(campaign_headline(rounds))
    return path


def campaign_report(record: CampaignRecord, workspace: Workspace, campaign: Campaign) -> Path:
    """Write the report of all rounds and attach it to the campaign's MLflow run."""
    path = folder(record, workspace) / "campaign.html"
    rounds = [_data(record, workspace, done) for done in campaign.rounds]
    write_atomically(path, pages.campaign_report(_about(record), rounds))
    record.run.log_artifact(path, "report")
    return path


def folder(record: CampaignRecord, workspace: Workspace) -> Path:
    """Where the campaign's reports lie."""
    return workspace.folder / "reports" / f"{record.pipeline.pipeline}-{record.key[:8]}"


def _about(record: CampaignRecord) -> About:
    return About(
        pipeline=record.pipeline.pipeline,
        seed=record.pipeline.seed,
        campaign=record.key,
        plugins=record.plugins(),
        mlflow=record.run.path,
    )


def _data(record: CampaignRecord, workspace: Workspace, done: Round) -> RoundData:
    tables: dict[str, list[dict[str, Any]]] = {}
    for ref in done.evaluations:
        tables |= json.loads((workspace.artifacts / ref.uri / "tables.json").read_text())
    heard = workspace.artifacts / done.reward.uri / "annotators.json" if done.reward else None
    if heard is not None and heard.exists() and (rows := json.loads(heard.read_text())):
        tables["reward_model_by_annotator"] = rows
    if done.tuning is not None and record.pipeline.tune is not None:
        tables["reward_model_trials"] = trial_rows(workspace.artifacts / done.tuning.uri, record.pipeline.tune.metric)
    samples = [SampleRow.of(row) for row in tables.pop("samples", [])]
    decision = Decision(promote=done.promoted, reasons=done.reasons) if done.number else None
    stages = {name: curve for (number, name), curve in record.curves.items() if number == done.number}
    return RoundData(
        round=done.number,
        metrics={**(done.snapshot.metrics if done.snapshot else {}), **done.contender.metrics},
        decision=decision,
        curves={name: read_curves(stages[name]) for name in SHOWN_STAGES if name in stages},
        calibration=_calibration(workspace, done),
        samples=samples,
        feedback=_feedback(done.snapshot) if done.snapshot else None,
        tables=tables,
        mlflow=record.round_run(done.number).path,
        snapshot=done.snapshot.ref.sha256 if done.snapshot else "",
        policy=done.contender.policy.sha256,
    )


def _calibration(workspace: Workspace, done: Round) -> list[CalibrationBin]:
    path = workspace.artifacts / done.reward.uri / "calibration.json" if done.reward else None
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
