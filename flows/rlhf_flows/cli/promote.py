"""`rlhf promote`: another version becomes the champion."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_flows.cli.options import workspace_option


@click.command()
@click.argument("pipeline")
@click.option("--to", "version", type=click.IntRange(min=1), required=True, help="Version of the policy's registry.")
@click.option("--reason", default="", help="Why; kept with the version.")
@workspace_option
def promote(pipeline: str, version: int, reason: str, workspace: Path) -> None:
    """Make version --to of a pipeline's policy the champion: roll back what the gate promoted, or promote what it kept.

    The next round starts from it, asks about it, and is compared with it; the gate may promote again.
    """
    from rlhf_flows.promotions import promote as choose
    from rlhf_flows.workspace import Workspace

    now, before = choose(Workspace.open(workspace), pipeline, version, reason)
    was = f" (was version {before.version}, round {before.origin.round})" if before is not None else ""
    click.echo(f"champion of {pipeline}: version {now.version}, round {now.origin.round}{was}")
    verdict = now.gate or {}
    if verdict.get("reasons"):
        click.echo(f"the gate said of it: {'; '.join(verdict['reasons'])}")
