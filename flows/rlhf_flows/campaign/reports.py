"""Reports of rounds and campaigns, gathered from artifacts and written to the workspace and to MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
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

GRAPH_WIDTH = 140
"""Columns of the drawing of the stages."""
SHOWN_STAGES = ("warm_start", "reward", "optimize")
"""Stages whose training curves are worth a figure."""


def round_report(record: CampaignRecord, campaign: Campaign) -> Path:
    """Write the report of the last round, beside the earlier ones, and attach it to the round's MLflow run.

    Of the earlier rounds no artifact is read, however many there are.
    """
    last = campaign.rounds[-1]
    path = folder(record) / f"round-{last.round}.html"
    champion = campaign.rounds[campaign.champion_before(last.round)] if last.round else None
    page = pages.round_report(
        _about(record),
        replace(_data(record, last), graph=campaign.graph_text(GRAPH_WIDTH)),
        champion=_data(record, champion, files=False) if champion is not None else None,
        first=_data(record, campaign.rounds[0], files=False),
    )
    write_atomically(path, page)
    record.round_run(last.round).log_artifact(path, "report")
    record.run.describe(campaign_headline([_figures(done) for done in campaign.rounds]))
    return path


def campaign_report(record: CampaignRecord, campaign: Campaign) -> Path:
    """Write the report of all rounds and attach it to the campaign's MLflow run.

    Of the earlier rounds only the champion's artifacts are read, however many there are.
    """
    path = folder(record) / "campaign.html"
    champion, last = campaign.champion_before(campaign.coming), campaign.coming - 1
    rounds = [_data(record, done, files=done.round in (champion, last)) for done in campaign.rounds]
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


def _data(record: CampaignRecord, done: RoundSummary, *, files: bool = True) -> RoundData:
    """What a report says of a round; without its `files`, what the ledger and small documents say of it."""
    tables = _tables(record, done) if files else {}
    samples = [SampleRow.of(row) for row in tables.pop("samples", [])]
    decision = Decision(promote=done.promoted, reasons=done.reasons) if done.round else None
    stages = {name.partition("/")[2]: each.key for name, each in done.stages.items()}
    feedback = done.feedback
    return RoundData(
        round=done.round,
        metrics={**(feedback.metrics if feedback else {}), **done.metrics},
        decision=decision,
        curves={name: _curves(record, stages, name) for name in SHOWN_STAGES if name in stages},
        calibration=_calibration(record, done) if files else [],
        samples=samples,
        feedback=_feedback(feedback) if feedback else None,
        tables=tables,
        mlflow=record.tracker.path(done.mlflow_run) if done.mlflow_run else record.round_run(done.round).path,
        snapshot=done.snapshot.sha256 if done.snapshot else "",
        policy=done.policy.sha256,
    )


def _tables(record: CampaignRecord, done: RoundSummary) -> dict[str, list[dict[str, Any]]]:
    """The rows that evaluators, and the search for settings, left."""
    artifacts = record.artifacts
    tables: dict[str, list[dict[str, Any]]] = {}
    for ref in done.evaluations:
        tables |= json.loads((artifacts.path(ref) / "tables.json").read_text())
    if rows := _beside_reward(record, done, "annotators.json"):
        tables["reward_model_by_annotator"] = rows
    if done.tuning is not None and record.pipeline.tune is not None:
        tables["reward_model_trials"] = trial_rows(artifacts.path(done.tuning), record.pipeline.tune.metric)
    return tables


def _curves(record: CampaignRecord, stages: Mapping[str, str], name: str) -> dict[str, list[tuple[int, float]]]:
    """A stage's curves, with those of the stages that fitted its members; `stages` are the round's, with their keys."""
    keys = [key for each, key in stages.items() if each == name or each.startswith(f"{name}_member_")]
    return {
        metric: points
        for key in keys
        for metric, points in read_curves(record.artifacts.read_text(curve_name(key))).items()
    }


def _calibration(record: CampaignRecord, done: RoundSummary) -> list[CalibrationBin]:
    return [
        CalibrationBin(row["low"], row["high"], row["predicted"], row["stated"], int(row["pairs"]))
        for row in _beside_reward(record, done, "calibration.json")
    ]


def _beside_reward(record: CampaignRecord, done: RoundSummary, name: str) -> list[dict[str, Any]]:
    """Rows that the fitting of the reward model left beside the weights; a step that replaced these left none."""
    fitted = done.result(f"{done.round}/reward")
    if fitted is None:
        return []
    path = record.artifacts.path(fitted.ref) / name
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return rows


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
