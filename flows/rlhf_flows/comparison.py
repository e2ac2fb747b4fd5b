"""The rounds of campaigns side by side, from the summaries in the workspace."""

from __future__ import annotations

from typing import Any

from rlhf_core.errors import WorkspaceError
from rlhf_flows.campaign.ledger import CampaignSummary, campaigns
from rlhf_flows.workspace import Workspace


def summaries(workspace: Workspace, pipeline: str | None = None) -> list[CampaignSummary]:
    """The campaigns of a workspace, the one that was worked on last first.

    Raises WorkspaceError where there is none (of this pipeline).
    """
    found = [summary for summary in campaigns(workspace.open_artifacts(), pipeline) if summary.rounds]
    if not found:
        whose = f"pipeline `{pipeline}` has" if pipeline else "there are"
        raise WorkspaceError(
            f"{whose} no finished round.", where=str(workspace.folder), remedy="Run one with `rlhf run`."
        )
    return found


def comparison(summary: CampaignSummary) -> dict[str, Any]:
    """The machine-readable form: `{"pipeline", "rounds": [{"round", "promoted", "metrics": {NAME: {...}}}]}`."""
    return {
        "pipeline": summary.pipeline,
        "campaign": summary.campaign,
        "seed": summary.seed,
        "rounds": [
            {
                "round": done.round,
                "promoted": done.promoted,
                "reasons": list(done.reasons),
                "policy": done.policy.sha256,
                "metrics": {name: metric.model_dump() for name, metric in sorted(done.metrics.items())},
            }
            for done in summary.rounds
        ],
    }
