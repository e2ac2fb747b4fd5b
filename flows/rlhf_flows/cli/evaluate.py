"""`rlhf evaluate`: the figures of predictions that another program made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlhf_flows.cli.options import json_option


@click.command()
@click.argument("evaluator")
@click.option("--predictions", type=click.Path(path_type=Path), required=True, help="The file to score.")
@click.option("--gold", help="What it is compared with: a file or a data set of the hub (the evaluator's `data`).")
@click.option("--set", "changes", multiple=True, metavar="OPTION=VALUE", help="Another option of the evaluator.")
@json_option
def evaluate(evaluator: str, predictions: Path, gold: str | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Score a file of predictions with an evaluator plugin, such as `stereoset`, `summary` or `human_scores`."""
    import yaml
    from pydantic import ValidationError

    from rlhf_core.errors import PipelineError
    from rlhf_core.pipeline.config_errors import explain
    from rlhf_core.pipeline.parts import dotted
    from rlhf_core.plugins import Use
    from rlhf_core.plugins.registry import Registry

    options: dict[str, Any] = {} if gold is None else {"data": gold}
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator:
            raise click.UsageError(f"--set takes OPTION=VALUE, not {change}")
        options[name] = yaml.safe_load(value)
    registry = Registry()
    plugin = registry.load("evaluators", evaluator)
    if "data" in plugin.Config.model_fields and plugin.Config.model_fields["data"].is_required():
        options.setdefault("data", str(predictions))
    try:
        measuring = registry.create("evaluators", Use(use=evaluator, **options))
    except ValidationError as error:
        (at, what), *_ = explain(error, plugin.Config, options)
        raise PipelineError(f"{dotted(at)} {what}", where=evaluator) from error
    found = measuring.score_predictions(predictions)
    if as_json:
        metrics = {name: metric.model_dump() for name, metric in found.metrics.items()}
        click.echo(json.dumps({"evaluator": evaluator, "metrics": metrics, "tables": found.tables}))
        return
    from rlhf_flows.cli.output import wide_display

    display = wide_display()
    display.table(["metric", "value"], [[name, str(metric)] for name, metric in found.metrics.items()])
    for name, rows in found.tables.items():
        display.heading(name)
        columns = list(rows[0]) if rows else []
        display.table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
