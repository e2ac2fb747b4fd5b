"""The `rlhf` command. Only click is imported here; each command's module is imported when it is called."""

from __future__ import annotations

import os

from rlhf_flows.cli.group import LazyGroup

COMMANDS = {
    "init": ("rlhf_flows.cli.init:init", "Write a commented pipeline to start from."),
    "check": ("rlhf_flows.cli.check:check", "Check a pipeline file and that its parts fit together."),
    "graph": ("rlhf_flows.cli.graph:graph", "Show a pipeline's stages, and what a run would do."),
    "run": ("rlhf_flows.cli.run:run", "Run the feedback loop of a pipeline, or go on with it."),
    "resume": ("rlhf_flows.cli.run:resume", "Go on with the run that was started last."),
    "collect": ("rlhf_flows.cli.run:collect", "Ask for feedback on the current champion, once."),
    "retrain": ("rlhf_flows.cli.run:retrain", "Learn from the feedback there is, once."),
    "plan": ("rlhf_flows.cli.plan:plan", "How many answers a wanted accuracy takes, by simulated raters."),
    "panel": ("rlhf_flows.cli.plan:panel", "Simulated raters fitted to your people."),
    "serve": ("rlhf_flows.cli.serve:serve", "Run a pipeline by itself: on a schedule, and as people answer."),
    "annotate": ("rlhf_flows.cli.annotate:annotate", "Serve the pages where people answer."),
    "invite": ("rlhf_flows.cli.annotate:invite", "A link for an annotator."),
    "compare": ("rlhf_flows.cli.look:compare", "The rounds of a campaign side by side."),
    "lineage": ("rlhf_flows.cli.look:lineage", "From a model to the labels behind it."),
    "evaluate": ("rlhf_flows.cli.evaluate:evaluate", "Score a file of predictions with an evaluator."),
    "promote": ("rlhf_flows.cli.promote:promote", "Make another version the champion: roll back, or forward."),
    "moderate": ("rlhf_flows.cli.moderate:moderate", "Flag harmful texts with a reward or cost model."),
    "export": ("rlhf_flows.cli.export:export", "Write the feedback down for other programs."),
    "ui": ("rlhf_flows.cli.look:ui", "Start the MLflow and Prefect user interfaces."),
    "withdraw": ("rlhf_flows.cli.feedback:withdraw", "Leave answers out of what is learnt."),
    "revise": ("rlhf_flows.cli.feedback:revise", "Correct one answer."),
    "plugins": ("rlhf_flows.cli.plugins:plugins", "List, show, check and write plugins."),
    "schema": ("rlhf_flows.cli.schema:schema", "The JSON Schema of pipeline files, for editors."),
    "doctor": ("rlhf_flows.cli.doctor:doctor", "Check versions, workspace, hardware and servers."),
}
"""Command -> where it is, and one line of help: both known without importing it."""

cli = LazyGroup(
    name="rlhf",
    commands_at=COMMANDS,
    help="Align a model with people's preferences, round after round: ask, learn, improve, prove, promote.",
    epilog="Start with `rlhf init demo`, then `rlhf run demo.yaml`.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Entry point of the `rlhf` command."""
    # GNU OpenMP, which torch computes with, lets a thread that waits for another spin for milliseconds. Where anything
    # else runs on the machine (a browser), that makes two threads slower than one. Read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    cli()
