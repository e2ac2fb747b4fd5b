"""The commands that change what the store says: withdraw and revise. Both append; nothing is ever deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlhf_flows.cli.options import workspace_option


@click.command()
@click.argument("annotator", required=False)
@click.option("--answer", "feedback_id", help="Withdraw one answer, by its id, instead of all of an annotator's.")
@click.option("--reason", default="", help="Why; kept with the withdrawal.")
@workspace_option
def withdraw(annotator: str | None, feedback_id: str | None, reason: str, workspace: Path) -> None:
    """Leave an annotator's answers, or one answer, out of everything that is learnt from now on."""
    if (annotator is None) == (feedback_id is None):
        raise click.UsageError("name either an ANNOTATOR or --answer ID")
    with _store(workspace) as store:
        count = store.withdraw(annotator=annotator, feedback_id=feedback_id, reason=reason)
    click.echo(f"{count} answers withdrawn. The next run recomputes what depended on them (`rlhf run --dry-run`).")


@click.command()
@click.argument("feedback_id")
@click.option("--set", "changes", multiple=True, required=True, metavar="FIELD=VALUE", help="E.g. choice=second.")
@workspace_option
def revise(feedback_id: str, changes: tuple[str, ...], workspace: Path) -> None:
    """Replace one answer by a corrected revision of it; the earlier one stays stored."""
    fields: dict[str, Any] = {}
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator:
            raise click.UsageError(f"--set takes FIELD=VALUE, not {change}")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    with _store(workspace) as store:
        revision = store.revise(feedback_id, **fields)
    click.echo(f"revised as {revision}. The next run recomputes what depended on it (`rlhf run --dry-run`).")


def _store(workspace: Path) -> Any:
    from contextlib import closing

    from rlhf_core.feedback.store import FeedbackStore
    from rlhf_flows.workspace import Workspace

    return closing(FeedbackStore.open(Workspace.open(workspace).store_url))
