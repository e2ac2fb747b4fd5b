"""`rlhf moderate`: a reward or cost model as a content filter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--by", required=True, metavar="NAME|YAML", help="A reward model plugin: cost, or {use: rule, ...}.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where a fitted one was saved.")
@click.option("--criterion", help="What of its criteria is the harm, such as cost; default: minus its reward.")
@click.option("--threshold", type=float, help="Harm from which a text is flagged.")
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Labelled JSONL to choose it on.")
@click.option("--precision", type=click.FloatRange(0, 1), help="The precision wanted on --labels.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Texts judged together.")
def moderate(
    file: Path | None,
    by: str,
    folder: Path | None,
    criterion: str | None,
    threshold: float | None,
    labels: Path | None,
    precision: float | None,
    batch: int,
) -> None:
    """Judge texts, one a line (plain, or JSON with `text` and perhaps `prompt`), from FILE or standard input.

    Prints a JSON object a line, with `score` and `flagged`. The threshold is given, or chosen on --labels, which hold
    `harmful` for each text, so that --precision of what is flagged is harmful.
    """
    import yaml
    from pydantic import ValidationError

    from rlhf_core.errors import PluginError
    from rlhf_core.plugins import Use
    from rlhf_flows.moderation import Moderator, read_rows

    if (threshold is None) == (labels is None) or (labels is None) != (precision is None):
        raise click.UsageError("give either --threshold, or --labels with --precision")
    options = yaml.safe_load(by)
    try:
        use = Use.model_validate(options if isinstance(options, dict) else {"use": by})
        moderator = Moderator(use, folder, criterion)
    except ValidationError as error:
        first = error.errors()[0]
        raise PluginError(f"{'.'.join(map(str, first['loc']))} {first['msg']}", where=f"--by {by}") from error
    if labels is not None:
        assert precision is not None
        chosen = moderator.choose(labels, precision)
        threshold = chosen.value
        click.echo(
            f"threshold {chosen.value:.4g}: precision {chosen.precision:.3f}, recall {chosen.recall:.3f} on {labels}",
            err=True,
        )
    assert threshold is not None
    lines = file.open(encoding="utf-8") if file is not None else sys.stdin
    with lines:
        for row in moderator.verdicts(read_rows(lines, str(file or "standard input")), threshold, batch):
            click.echo(json.dumps(row, ensure_ascii=False))
            sys.stdout.flush()
