"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RLHF_WORKSPACE",
    default=Path(".rlhf"),
    show_default=True,
    show_envvar=True,
    help="Folder of feedback, runs, artifacts and checkpoints.",
)
"""`workspace: Path`."""

pipeline_argument = click.argument("pipeline", type=click.Path(path_type=Path))
"""`pipeline: Path`, which may not exist: reading it says so in our words."""

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a value of the pipeline; repeatable."
)
"""`overrides: tuple[str, ...]`."""

site_option = click.option(
    "--site",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="RLHF_SITE",
    show_envvar=True,
    help="File that says where stages run and artifacts lie, shared by pipelines.",
)
"""`site: Path | None`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
"""`as_json: bool`."""
