"""`rlhf export`: the feedback as a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_flows.cli.options import workspace_option

FORMATS = ("jsonl", "parquet", "trl", "hh", "label_studio", "argilla")
"""Those of `rlhf_core.feedback.export`; written out so that help needs no import."""


@click.command()
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--annotator", help="Only what this annotator said.")
@workspace_option
def export(form: str, file: Path, annotator: str | None, workspace: Path) -> None:
    """Write all answers that count now to FILE, as FORMAT: jsonl (whole answers, which `people` takes as gold),
    parquet, trl and hh (preferences), label_studio or argilla (tasks with answers)."""
    from rlhf_core.errors import RlhfError
    from rlhf_core.feedback.export import EXPORTS, write_parquet
    from rlhf_core.feedback.store import FeedbackStore
    from rlhf_core.files import replaced
    from rlhf_flows.workspace import Workspace

    with FeedbackStore.open(Workspace.open(workspace).store_url) as store:
        answers = (each for each in store.answers() if annotator in (None, each.feedback.annotator))
        try:
            with replaced(file.absolute()) as draft:
                if form == "parquet":
                    write_parquet(answers, draft)
                else:
                    with draft.open("w", encoding="utf-8") as out:
                        out.writelines(EXPORTS[form][1](answers))
        except OSError as error:
            raise RlhfError(f"the file cannot be written: {error.strerror or error}", where=str(file)) from error
    click.echo(f"{file}  {file.stat().st_size:,} bytes")
