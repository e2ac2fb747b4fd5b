"""`rlhf graph`: the stages of a pipeline, what they exchange, and what a run would do."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rlhf_flows.cli.options import pipeline_argument, set_option, site_option, workspace_option

PLAIN_WIDTH = 120
"""Columns where there is no terminal."""


@click.command()
@pipeline_argument
@workspace_option
@set_option
@site_option
@click.option("--round", "number", type=click.IntRange(min=0), help="Only this round; 0 is the start.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "mermaid", "dot", "json"]),
    default="terminal",
    show_default=True,
    help="How to print it.",
)
def graph(
    pipeline: Path, workspace: Path, overrides: tuple[str, ...], site: Path | None, number: int | None, form: str
) -> None:
    """Show every stage with what it takes and gives, whether its result is known, and why it would run again."""
    from rlhf_flows.display import Display, Silent
    from rlhf_flows.graph.render import to_dot, to_json, to_mermaid, to_rich
    from rlhf_flows.graph.states import by_round
    from rlhf_flows.session import Session

    session = Session.open(pipeline, overrides, workspace, Silent(), site)
    states = session.preview(number)
    shown = [state for state in states if number in (None, state.node.round)]
    if form == "json":
        click.echo(json.dumps(to_json(shown)))
    elif form == "mermaid":
        click.echo(to_mermaid(shown))
    elif form == "dot":
        click.echo(to_dot(shown))
    else:
        console = Display().console
        for round_, of_round in by_round(shown).items():
            title = f"{session.pipeline.pipeline} · " + (f"round {round_}" if round_ else "start")
            width = console.width if console.is_terminal else PLAIN_WIDTH
            console.print()
            console.print(to_rich(of_round, title, width), soft_wrap=True)
