"""A stage whose settings say what happens in it, in whatever process it is put; and graphs of such stages."""

import os
import signal
import sys
import time
from pathlib import Path

from prefect import flow

from rlhf_core.errors import DataError, Waiting
from rlhf_flows.graph import Graph, Node
from rlhf_flows.graph.node import Input
from rlhf_flows.stages.context import Outcome


def play(context):
    """What the settings say, in this order; then a file with the stage's name and what its inputs hold."""
    wanted = dict(context.settings)
    tries = _tally(wanted.get("tally"))
    if "meet" in wanted:
        _meet(Path(wanted["meet"]), wanted["parties"])
    if note := wanted.get("note"):
        context.run.note(note)
    if "checkpoint" in wanted:
        context.run.checkpoints.save(tries, lambda folder: (folder / "try").write_text(str(tries)))
    until = time.monotonic() + wanted.get("sleep", 0)
    while time.monotonic() < until:
        time.sleep(0.02)  # in pieces: a limit of time ends Python code between two of its steps
    if tries <= wanted.get("dies", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if tries <= wanted.get("stumbles", 0):
        raise RuntimeError(f"stumbled the {tries}. time")
    if "exits" in wanted:
        sys.exit(wanted["exits"])
    if mistake := wanted.get("mistake"):
        raise DataError(mistake, where="rows.csv:7", remedy="Correct the row.")
    if "people" in wanted:
        raise Waiting(wanted["people"], "people")
    held = [(context.need(name) / "text").read_text() for name in sorted(context.node.inputs)]
    (context.draft / "text").write_text(f"{context.node.name}({', '.join(held)})")
    return Outcome(info={"summary": f"try {tries}", "pid": os.getpid()})


TO_DO = []
"""What the next flow run does. Workers are handed the flow, by its name, and nothing of this."""


@flow(name="played", persist_result=False)
def played():
    return TO_DO.pop()()


def node(name, after=(), stage="evaluate", round_=1, cached=True, **settings):
    """A stage that takes what others give, by their names."""
    return Node(
        id=f"{round_}/{name}",
        name=name,
        stage=stage,
        body="played_stages:play",
        title=name,
        gives="text",
        pipeline="played",
        round=round_,
        settings=settings,
        inputs={other: Input(node=f"{round_}/{other}", kind="text") for other in after},
        cached=cached,
    )


def graph(*nodes):
    return Graph(pipeline="played", round=1, nodes=nodes)


def _tally(path):
    """How often the stage was tried, this time counted."""
    if path is None:
        return 1
    with open(path, "a") as file:
        file.write("1")
    return len(Path(path).read_text())


def _meet(folder, parties):
    """Wait until as many stages are at work at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < parties:
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.02)
