"""`rlhf serve`: a pipeline that goes on by itself."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_flows.cli.options import pipeline_argument, set_option, workspace_option


@click.command()
@pipeline_argument
@workspace_option
@set_option
@click.option("--cron", help='Go on at these times, e.g. "0 3 * * *" for three every night.')
@click.option("--answers", type=click.IntRange(min=1), help="Go on whenever people gave this many new answers.")
def serve(pipeline: Path, workspace: Path, overrides: tuple[str, ...], cron: str | None, answers: int | None) -> None:
    """Run a pipeline and go on with it whenever enough is answered; Ctrl-C stops it, and nothing is lost.

    It begins at once, waits for people without working, and goes on when every question is answered. When the rounds
    of the pipeline are done it goes on learning from what is new and asking about the result.
    """
    from rlhf_flows.display import Silent
    from rlhf_flows.serving import serve_pipeline
    from rlhf_flows.session import Session

    session = Session.open(pipeline, overrides, workspace, Silent())
    serve_pipeline(
        session.workspace, pipeline, session.pipeline.pipeline, overrides, cron=cron, answers=answers, say=click.echo
    )
