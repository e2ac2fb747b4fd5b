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
@click.option("--answers", type=click.IntRange(min=1), help="Learn whenever there are this many new answers.")
def serve(pipeline: Path, workspace: Path, overrides: tuple[str, ...], cron: str | None, answers: int | None) -> None:
    """Run a pipeline and go on with it whenever enough is answered; Ctrl-C stops it, and nothing is lost.

    It begins at once, waits for people without working, and goes on when every question is answered, whatever program
    they answer in. When the rounds of the pipeline are done it asks about the result and goes on learning from what is
    new. With --answers it learns from so many new answers without waiting for the rest.
    """
    from rlhf_flows.display import Silent
    from rlhf_flows.serving import serve_pipeline
    from rlhf_flows.session import Session

    session = Session.open(pipeline, overrides, workspace, Silent())
    serve_pipeline(session, pipeline, overrides, cron=cron, answers=answers, say=click.echo)
