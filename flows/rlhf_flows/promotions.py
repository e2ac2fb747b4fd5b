"""Champions that people chose over the gate's: rollbacks, and the contrary. A document a pipeline beside the artifacts.

A campaign is replayed by every command that goes on with it; what was chosen counts from the round after which it was
chosen, so that earlier rounds stay what they were.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import WorkspaceError
from rlhf_core.feedback.lock import held
from rlhf_core.tracking.registry import CHAMPION, ModelVersion
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.workspace import Workspace, holder


class Promotion(BaseModel):
    """One choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str
    after: int
    """The last round that was finished when it was chosen."""
    round: int
    """The round whose policy is the champion from then on."""
    version: int
    """Its version in the registry."""
    reason: str = ""
    by: str = ""
    at: str = ""


def promotions(workspace: Workspace, pipeline: str, campaign: str = "") -> list[Promotion]:
    """The choices so far, oldest first; those of one campaign, where one is given."""
    text = workspace.open_artifacts().read_text(_name(pipeline))
    found = [Promotion.model_validate(entry) for entry in json.loads(text)] if text is not None else []
    return [one for one in found if campaign in ("", one.campaign)]


def champion_round(promoted: Sequence[bool], chosen: Sequence[Promotion]) -> int:
    """The champion's round after len(`promoted`) rounds, by the gate's verdicts (`promoted[0]` is the warm start's) and
    the choices over them. A choice holds until the gate promotes again.
    """
    champion = 0
    for number, verdict in enumerate(promoted):
        champion = number if verdict else champion
        for one in chosen:
            if one.after == number and one.round <= number:
                champion = one.round
    return champion


def promote(workspace: Workspace, pipeline: str, version: int, reason: str) -> tuple[ModelVersion, ModelVersion | None]:
    """Make a registry version the champion; returns it and the champion before.

    Raises WorkspaceError where there is no such version, where it is the champion already, or where a run that holds
    the workspace could promote at the same moment.
    """
    with workspace.held(f"promote {pipeline}"), held(workspace.store_url, workspace.lock_name(pipeline), holder()):
        models = Tracker.open(workspace.folder, pipeline, workspace.mlflow_uri, workspace.mlflow_artifacts).models
        name = f"{pipeline}-policy"
        found, before = models.get(name, version), models.get(name, CHAMPION)
        if found is None:
            known = [f"{one.version} (round {one.origin.round})" for one in models.versions(name)]
            raise WorkspaceError(
                f"`{name}` has no version {version}.",
                where=str(workspace.folder),
                remedy=f"There are: {', '.join(known) or 'none'}.",
            )
        if before is not None and before.version == found.version:
            raise WorkspaceError(f"version {version} of `{name}` is the champion already.", where=str(workspace.folder))
        # Every finished round has its version here.
        campaign = found.origin.campaign
        last = max(one.origin.round for one in models.versions(name) if one.origin.campaign == campaign)
        who = ""
        with suppress(KeyError, OSError):
            who = getpass.getuser()
        one = Promotion(
            campaign=campaign,
            after=last,
            round=found.origin.round,
            version=version,
            reason=reason,
            by=who,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        # The choice first: what a killed command left undone in the registry, the next run makes good.
        kept = [entry.model_dump() for entry in [*promotions(workspace, pipeline), one]]
        workspace.open_artifacts().write_text(_name(pipeline), json.dumps(kept, indent=1))
        evidence = one.model_dump() | {"instead_of": before.version if before is not None else None}
        models.set_tags(found, {"rlhf.chosen": json.dumps(evidence, ensure_ascii=False)})
        models.set_alias(name, CHAMPION, version)
        return found, before


def _name(pipeline: str) -> str:
    return f"promotions/{pipeline}.json"
