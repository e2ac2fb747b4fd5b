"""The commands that run pipelines: run, resume, and what a run would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_flows.cli.options import pipeline_argument, set_option, site_option, workspace_option

if TYPE_CHECKING:
    from rlhf_flows.campaign.ledger import CampaignSummary
    from rlhf_flows.display import Display
    from rlhf_flows.session import Half, Session


@click.command()
@pipeline_argument
@workspace_option
@set_option
@site_option
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds in all; more than before continues the campaign.")
@click.option("--dry-run", is_flag=True, help="Show every stage and whether its result is known; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def run(
    pipeline: Path,
    workspace: Path,
    overrides: tuple[str, ...],
    site: Path | None,
    rounds: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the feedback loop of a pipeline; after a stop or a kill the same command goes on where it was."""
    from rlhf_flows.display import Display, Silent
    from rlhf_flows.session import Session

    display = Silent() if as_json else Display()
    if rounds is not None:
        overrides = (*overrides, f"rounds={rounds}")
    session = Session.open(pipeline, overrides, workspace, display, site)
    if dry_run:
        _show_plan(session, as_json)
        return
    remember(session.workspace.folder, pipeline, overrides, site)
    summary = session.run()
    if as_json:
        from rlhf_flows.comparison import comparison

        click.echo(json.dumps(comparison(summary)))
    else:
        _where_to_look(summary, workspace, display)


@click.command()
@workspace_option
def resume(workspace: Path) -> None:
    """Go on with the run that was last started in this workspace."""
    from rlhf_core.errors import WorkspaceError
    from rlhf_flows.display import Display
    from rlhf_flows.session import Session

    last = workspace.absolute() / "last.json"
    if not last.exists():
        raise WorkspaceError("nothing was run in this workspace yet.", where=str(workspace), remedy="Use `rlhf run`.")
    said = json.loads(last.read_text())
    display = Display()
    site = Path(said["site"]) if said.get("site") else None
    session = Session.open(Path(said["pipeline"]), said["set"], workspace, display, site)
    _where_to_look(session.run(), workspace, display)


@click.command()
@pipeline_argument
@workspace_option
@set_option
@site_option
def collect(pipeline: Path, workspace: Path, overrides: tuple[str, ...], site: Path | None) -> None:
    """Ask about the current champion: the first half of one more round."""
    _half(pipeline, workspace, overrides, site, "collect")


@click.command()
@pipeline_argument
@workspace_option
@set_option
@site_option
def retrain(pipeline: Path, workspace: Path, overrides: tuple[str, ...], site: Path | None) -> None:
    """Learn from the feedback that is there: the second half of one more round."""
    _half(pipeline, workspace, overrides, site, "retrain")


def _half(pipeline: Path, workspace: Path, overrides: tuple[str, ...], site: Path | None, half: Half) -> None:
    from rlhf_flows.display import Display
    from rlhf_flows.session import Session

    display = Display()
    _where_to_look(Session.open(pipeline, overrides, workspace, display, site).run(half), workspace, display)


def remember(workspace: Path, pipeline: Path, overrides: tuple[str, ...], site: Path | None) -> None:
    """Note what was run, for `rlhf resume`."""
    from rlhf_flows.workspace import write_atomically

    said = {
        "pipeline": str(pipeline.absolute()),
        "set": list(overrides),
        "site": str(site.absolute()) if site else None,
    }
    write_atomically(workspace / "last.json", json.dumps(said))


def _show_plan(session: Session, as_json: bool) -> None:
    states = session.preview()
    if as_json:
        rows = [
            {
                "round": state.node.round,
                "stage": state.node.name,
                "state": state.state,
                "key": state.key,
                "inputs": list(state.node.inputs),
                "why": state.why,
            }
            for state in states
        ]
        click.echo(json.dumps(rows))
        return
    words = {
        "cached": "↺ cached",
        "run": "▶ runs",
        "after": "▶ runs, or not: depends on an earlier stage",
        "waits": "? waits for people",
    }
    session.display.table(
        ["round", "stage", "state", "from"],
        [
            [
                str(state.node.round),
                state.node.name,
                words[state.state] + (f": {state.why}" if state.why else ""),
                ", ".join(state.node.inputs),
            ]
            for state in states
        ],
    )


def _where_to_look(summary: CampaignSummary, workspace: Path, display: Display) -> None:
    report = workspace / "reports" / f"{summary.pipeline}-{summary.campaign[:8]}" / "campaign.html"
    display.say(f"\nreport  {report}")
    display.say(f"MLflow and Prefect  rlhf ui --workspace {workspace}")
    display.say(f"lineage of the champion  rlhf lineage {summary.pipeline} --workspace {workspace}")
