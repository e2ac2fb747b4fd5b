"""`rlhf init`: a pipeline to start from."""

from __future__ import annotations

import re
from pathlib import Path

import click


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Write NAME.yaml: the newsroom demo, with a comment at every line worth changing."""
    from importlib.resources import files

    from rlhf_core.errors import PipelineError

    name = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise PipelineError(
            f"`{name}` cannot be the name of a pipeline.",
            remedy="Names begin with a letter or a digit and go on with letters, digits, dots, dashes and underscores.",
        )
    path = Path(f"{name}.yaml")
    template = files("rlhf_flows.templates").joinpath("newsroom.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template.replace("pipeline: newsroom", f"pipeline: {name}", 1))
    except FileExistsError as error:
        raise PipelineError(
            "the file exists; it was left as it is.", where=str(path), remedy="Choose another name, or remove it."
        ) from error
    except OSError as error:
        raise PipelineError(f"the file cannot be written: {error.strerror}.", where=str(path)) from error
    click.echo(f"wrote {path}\n  rlhf check {path}\n  rlhf schema --write    completion in editors\n  rlhf run {path}")
    ignored = Path(".gitignore")
    if Path(".git").exists() and not (ignored.exists() and ".rlhf" in ignored.read_text(encoding="utf-8")):
        click.echo("Add .rlhf/ to .gitignore: runs, models and feedback go there.")
