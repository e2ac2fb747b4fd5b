"""`rlhf plan`, what a campaign will take, and `rlhf panel`, simulated raters who answer like your people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlhf_flows.cli.options import json_option, pipeline_argument, set_option, workspace_option


@click.command()
@pipeline_argument
@workspace_option
@set_option
@click.option("--target", default=0.8, show_default=True, type=click.FloatRange(0.5, 1, True, True),
              help="Accuracy of the reward model that is to be reached, by the judge of the simulation.")  # fmt: skip
@click.option("--questions", type=click.IntRange(min=20), help="The most to be tried; default: the pipeline's a round.")
@click.option("--overlap", "overlaps", multiple=True, type=click.IntRange(min=1),
              help="Answers a question; repeatable. Default: 1 and the pipeline's.")  # fmt: skip
@click.option("--raters", multiple=True, type=click.IntRange(min=1),
              help="How many raters; repeatable. Default: as the panel has.")  # fmt: skip
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1),
              help="How often each size is tried, with other raters and other questions.")  # fmt: skip
@click.option("--fit", is_flag=True, help="Let the panel answer like the people in the store (see `rlhf panel`).")
@json_option
def plan(
    pipeline: Path, workspace: Path, overrides: tuple[str, ...], target: float, questions: int | None,
    overlaps: tuple[int, ...], raters: tuple[int, ...], repeats: int, fit: bool, as_json: bool,
) -> None:  # fmt: skip
    """How many questions, answers and raters lead to a reward model of a wanted accuracy.

    Simulated raters answer growing numbers of questions about the pipeline's own samples, its reward model learns from
    them, and a curve is fitted. Nothing of it counts as feedback.
    """
    from rlhf_core.errors import RlhfError
    from rlhf_flows import planning
    from rlhf_flows.display import Display, Silent
    from rlhf_flows.session import Session

    display = Silent() if as_json else Display()
    session = Session.open(pipeline, overrides, workspace, display)
    panel, judge = planning.panel_of(session)
    if fit:
        _, panel = planning.fit_to_people(session)
    ask = session.pipeline.ask
    assert ask is not None
    config: Any = session.registry.load("annotators", "simulated_panel").Config(
        **{name: value for name, value in panel.items() if name != "use"}
    )
    asked = planning.Question(
        target=target,
        budgets=planning.budgets_up_to(questions or ask.questions),
        overlaps=tuple(sorted(set(overlaps or (1, ask.overlap)))),
        raters=tuple(sorted(set(raters or (max(config.raters, ask.overlap),)))),
        repeats=repeats,
    )
    if min(asked.overlaps) > max(asked.raters):
        raise click.UsageError(f"{max(asked.raters)} raters cannot give {min(asked.overlaps)} answers to a question")
    plans = planning.plan(session, asked, panel, judge)
    if not plans:
        raise RlhfError(
            "no reward model could be fitted on two sizes or more.", remedy="Try more --questions; see the notes above."
        )
    report = planning.write_report(session, plans, target, panel)
    chosen = planning.best(plans)
    if as_json:
        best = None if chosen is None else {"overlap": chosen.overlap, "raters": chosen.raters,
                                            "questions": chosen.needed, "answers": chosen.answers}  # fmt: skip
        found = {"target": target, "best": best, "panel": panel, "report": str(report),
                 "plans": [each.model_dump(mode="json") for each in plans]}  # fmt: skip
        click.echo(json.dumps(found))
        return
    display.table(*planning.table(plans))
    display.say(f"\n{planning.headline(plans, target)}.")
    display.say(f"report  {report}")


@click.command()
@pipeline_argument
@workspace_option
@set_option
@click.option(
    "--annotator", "annotators", multiple=True, help="Only these annotators; repeatable. Default: all people."
)
@json_option
def panel(
    pipeline: Path, workspace: Path, overrides: tuple[str, ...], annotators: tuple[str, ...], as_json: bool
) -> None:
    """Fit simulated raters to people's comparisons: an annotator for `ask:` of a rehearsal.

    Noise, biases, ties, skips, slips and values are estimated by maximum likelihood from the answers in the store, with
    95 % intervals. The judge is that of the pipeline's `simulated_panel`, else its `gold`.
    """
    import yaml

    from rlhf_flows import planning
    from rlhf_flows.display import Silent
    from rlhf_flows.session import Session

    session = Session.open(pipeline, overrides, workspace, Silent())
    found, config = planning.fit_to_people(session, annotators)
    if as_json:
        estimates = {name: metric.model_dump() for name, metric in (found.options | found.values).items()}
        click.echo(json.dumps({"panel": config, "estimates": estimates, "answers": found.answers}))
        return
    click.echo(f"# fitted to {found.answers:,} comparisons of {found.raters} people; with 95 % intervals")
    for name, metric in (found.options | found.values).items():
        ends = "" if metric.low is None or metric.high is None else f" [{metric.low:.3g}, {metric.high:.3g}]"
        click.echo(f"#   {name:<20} {metric.value:.3g}{ends}")
    click.echo(yaml.safe_dump([config], sort_keys=False, allow_unicode=True), nl=False)
