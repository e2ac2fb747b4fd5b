"""`rlhf schema`: what editors need to complete and check pipeline files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rlhf_flows.cli.options import workspace_option


@click.command()
@workspace_option
@click.option("--write", is_flag=True, help="Write it to schema.json in the workspace instead of printing it.")
def schema(workspace: Path, write: bool) -> None:
    """Print the JSON Schema of pipeline files, with all installed plugins and their options.

    An editor with the YAML language server uses it where the first line of a pipeline names it:

        # yaml-language-server: $schema=.rlhf/schema.json
    """
    from rlhf_core.pipeline.json_schema import pipeline_schema
    from rlhf_core.plugins.registry import Registry

    text = json.dumps(pipeline_schema(Registry()), indent=2, ensure_ascii=False)
    if not write:
        click.echo(text)
        return
    from rlhf_flows.workspace import Workspace, write_atomically

    path = Workspace.open(workspace).folder / "schema.json"
    write_atomically(path, text + "\n")
    click.echo(f"wrote {path}")
