"""The commands that look at what was done: compare, lineage, ui."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rlhf_flows.cli.options import workspace_option


@click.command()
@workspace_option
@click.option("--pipeline", help="Only campaigns of this pipeline; default: the campaign worked on last.")
@click.option("--all", "every", is_flag=True, help="Every campaign of the workspace, not only the last.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (a list of them with --all).")
def compare(workspace: Path, pipeline: str | None, every: bool, as_json: bool) -> None:
    """The rounds of a campaign side by side."""
    from rlhf_flows.comparison import comparison, summaries
    from rlhf_flows.display import Display
    from rlhf_flows.work import results_table
    from rlhf_flows.workspace import Workspace

    found = summaries(Workspace.open(workspace), pipeline)
    chosen = found if every else found[:1]
    if as_json:
        objects = [comparison(summary) for summary in chosen]
        click.echo(json.dumps(objects if every else objects[0]))
        return
    display = Display()
    for summary in chosen:
        display.heading(summary.pipeline, f"seed {summary.seed}")
        display.table(*results_table(summary.rounds))


@click.command()
@click.argument("model")
@workspace_option
@click.option("--labels", is_flag=True, help="List every label instead of counting them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def lineage(model: str, workspace: Path, labels: bool, as_json: bool) -> None:
    """From a model to the labels behind it. MODEL is a pipeline, or NAME@ALIAS, NAME/VERSION of the registry."""
    from rlhf_flows.display import Display
    from rlhf_flows.provenance import trace
    from rlhf_flows.workspace import Workspace

    found = trace(Workspace.open(workspace), model, every_label=labels)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    display = Display()
    for heading, columns, rows in found.tables():
        display.heading(heading)
        display.table(columns, rows)


@click.command()
@workspace_option
@click.option("--port", default=5000, show_default=True, help="Port of the MLflow UI; Prefect gets the next one.")
def ui(workspace: Path, port: int) -> None:
    """Start the MLflow and Prefect user interfaces on the workspace, on this machine only."""
    from rlhf_flows.ui import serve_user_interfaces
    from rlhf_flows.workspace import Workspace

    serve_user_interfaces(Workspace.open(workspace), port)
