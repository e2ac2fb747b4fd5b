"""`rlhf check`: is this pipeline file right, and do its parts fit together?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from rlhf_flows.cli.options import json_option, pipeline_argument, set_option


@click.command()
@pipeline_argument
@set_option
@json_option
def check(pipeline: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a pipeline file and that its parts fit together; exit code 2 where they don't."""
    from rlhf_core.errors import PipelineError
    from rlhf_core.pipeline.file import Problem, load_pipeline
    from rlhf_core.pipeline.wiring import check as find_problems
    from rlhf_core.plugins.registry import Registry

    registry = Registry()
    loaded = None
    try:
        loaded = load_pipeline(pipeline, overrides, registry)
        problems = find_problems(loaded, registry)
    except PipelineError as error:
        problems = getattr(error, "problems", None) or [Problem(error.where, error.what, error.remedy)]
    parts: list[dict[str, Any]] = [
        {"place": part.place, "kind": part.kind, "plugin": part.info.name}
        | {"distribution": part.info.distribution, "version": part.info.version}
        for part in (loaded.chosen if loaded else [])
    ]
    if as_json:
        found = {"ok": not problems, "problems": [problem._asdict() for problem in problems], "parts": parts}
        click.echo(json.dumps({"pipeline": loaded.pipeline.pipeline if loaded else None, **found}))
    elif problems:
        click.echo("\n".join(map(str, problems)), err=True)
    elif loaded:
        from rlhf_flows.display import Display

        rounds = loaded.pipeline.rounds
        click.echo(f"ok  {loaded.pipeline.pipeline} · {rounds} round{'s' * (rounds > 1)} · every part fits")
        rows = [[part["place"], part["plugin"], f"{part['distribution']} {part['version']}"] for part in parts]
        Display().table(["part", "plugin", "from"], rows)
    sys.exit(2 if problems else 0)
