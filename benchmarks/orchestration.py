"""What orchestration costs, and whether Prefect shows the graph that is run.

Parts (`--parts`, by default all):

- `edges`: what Prefect's API says each stage was run from, against the predecessors in `rlhf graph --format json`.
  Exits with 1 where they differ.
- `start`: a campaign in a fresh workspace (cold), one more round of it (warm), and the same command again (cached).
  Seconds until the first stage begins; the share of the wall time after that which is no stage's; processor seconds.
- `history`: seconds until the first stage of the round after 1 and after 30 finished rounds of a tiny campaign.
- `workers`: wall time of a round's four annotators, whose judge waits for each sample as for a model behind a server,
  and of its four evaluators, whose judge computes; with one worker and with two. Two need two idle cores to compute.

With `--before CHECKOUT`, a folder with another version of this project, `start`, `history` and `workers` are measured
with both, one after the other in each of the `--repeats`, so that what else the machine does meets both; the medians
are compared. All times come from MLflow, where every version writes when a stage ended and how long it took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

RLHF = Path(sys.executable).with_name("rlhf")
DEMO = Path("deployments/pipelines/newsroom.yaml")
TINY = Path("tests/rlhf_flows/small.yaml")
QUICK = (
    "data.0.prompts=100", "data.0.demonstrations=200", "ask.questions=4", "optimize.steps=1", "optimize.batch=4",
    "test.prompts=4",
)  # fmt: skip
"""Settings that make the tiny campaign's rounds as short as they can be."""
SECONDS = 0.04
"""What a judge of `workers` takes for each sample: waiting, as for a model behind a server, or at work."""
ROUNDS = 75_000
"""Rounds of hashing that take about as long on a core of its own."""
WAITS = {"use": "callable", "function": "orchestration:judged", "options": {"seconds": SECONDS}}
WORKS = {"use": "callable", "function": "orchestration:judged", "options": {"rounds": ROUNDS}}
ASKED = [{"use": "simulated_panel", "prefix": f"panel-{number}", "judge": WAITS} for number in range(1, 5)]
JUDGED = [{"use": "win_rate", "judge": "gold", "shown": number} for number in range(1, 5)]
SIDE_BY_SIDE = (
    f"ask.annotators={json.dumps(ASKED)}", f"evaluate={json.dumps(JUDGED)}", f"gold={json.dumps(WORKS)}",
    "ask.questions=80", "data.0.prompts=600", "test.prompts=60",
)  # fmt: skip
PARTS = ("edges", "start", "history", "workers")


def judged(prompt: Any, sample: Any, seconds: float = 0.0, rounds: int = 1) -> float:
    """A judge that takes its time: a score from the text alone, after a wait and some rounds of hashing."""
    time.sleep(seconds)
    text = str(sample.text).encode()
    return hashlib.pbkdf2_hmac("sha256", text, b"judge", rounds)[0] / 255 - len(text) / 100


class Version(NamedTuple):
    """A version of the project."""

    name: str
    checkout: Path | None
    """None for the one that is installed."""

    def environment(self) -> dict[str, str]:
        """In which `rlhf` is this version, and the judge above can be imported."""
        folders = [str(Path(__file__).absolute().parent)]
        if self.checkout is not None:
            folders += [str(self.checkout / part) for part in ("", "flows", "plugins")]
        elif before := os.environ.get("PYTHONPATH"):
            folders.append(before)
        return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    began: float
    wall: float
    processor: float
    """Seconds of all its processes."""


class Stage(NamedTuple):
    """A stage in MLflow."""

    name: str
    round: int
    began: float
    ended: float


def run(version: Version, pipeline: Path, workspace: Path, sets: Sequence[str], *options: str) -> Ran:
    """Run a campaign."""
    overrides = [part for assignment in sets for part in ("--set", assignment)]
    command = [str(RLHF), "run", str(pipeline), "--workspace", str(workspace), *overrides, *options]
    began, clock = time.time(), time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=version.environment())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ({version.name}) failed:\n{said.read()[-3000:]}")
    return Ran(began, time.monotonic() - clock, used.ru_utime + used.ru_stime)


def stages(workspace: Path, since: float = 0.0, first_round: int = 0) -> list[Stage]:
    """The stages of a round, and of those after it, that began since a moment, the first one first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.absolute() / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = []
    for each in client.search_runs(experiments, "tags.`rlhf.level` = 'stage'", max_results=10_000):
        tags, ended = each.data.tags, (each.info.end_time or 0) / 1000
        began, number = ended - each.data.metrics["seconds"], int(tags["rlhf.round"])
        if began > since and number >= first_round:
            found.append(Stage(tags["rlhf.stage"], number, began, ended))
    return sorted(found, key=lambda stage: stage.began)


def covered(found: Sequence[Stage]) -> float:
    """Seconds in which at least one stage was under way."""
    total, reached = 0.0, 0.0
    for stage in found:
        total += max(0.0, stage.ended - max(stage.began, reached))
        reached = max(reached, stage.ended)
    return total


def costs(name: str, ran: Ran, workspace: Path, first_round: int) -> dict[str, float]:
    """Start-up and overhead of a run that found what lies before a round finished."""
    # A version that goes through finished stages again writes that they ended again: they are left out by their round.
    found = stages(workspace, ran.began, first_round)
    start = found[0].began - ran.began
    rest = ran.wall - start
    return {
        f"{name}_first_stage_s": start,
        f"{name}_total_s": ran.wall,
        f"{name}_cpu_s": ran.processor,
        f"{name}_no_stage_share": (rest - covered(found)) / rest,
        f"{name}_between_stages_s": rest - covered(found),
    }


def measure_start(version: Version, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Cold, one more round, and everything cached."""
    pipeline, sets = options.pipeline, options.set
    cold = costs("cold", run(version, pipeline, folder, sets), folder, 0)
    coming = 1 + max(stage.round for stage in stages(folder))
    warm = costs("warm", run(version, pipeline, folder, sets, "--rounds", str(coming)), folder, coming)
    cached = run(version, pipeline, folder, sets, "--rounds", str(coming))
    return {**cold, **warm, "cached_total_s": cached.wall, "cached_cpu_s": cached.processor}


def measure_history(version: Version, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The start of a round after few and after many."""
    found: dict[str, float] = {}
    for finished in (1, options.history):
        run(version, TINY, folder, QUICK, "--rounds", str(finished))
        ran = run(version, TINY, folder, QUICK, "--rounds", str(finished + 1))
        found |= costs(f"after_{finished}", ran, folder, finished + 1)
    return found


def measure_workers(version: Version, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The same second round with one worker and with two."""
    begun = folder / "begun"
    run(version, TINY, begun, (*QUICK, *SIDE_BY_SIDE), "--rounds", "1")
    found: dict[str, float] = {}
    for workers in (1, 2) if version.checkout is None else (1,):
        workspace = folder / f"workers-{workers}"
        shutil.copytree(begun, workspace)
        placed = (f"run_on.workers={workers}",) if version.checkout is None else ()
        ran = run(version, TINY, workspace, (*QUICK, *SIDE_BY_SIDE, *placed), "--rounds", "2")
        done = stages(workspace, ran.began, first_round=2)
        for kind, before in (("answers", "questions"), ("evaluate", "samples")):
            start = max(stage.ended for stage in done if stage.name.startswith(before))
            end = max(stage.ended for stage in done if stage.name.startswith(kind))
            found[f"{kind}_{workers}_workers_s"] = end - start
    return found


def measure_edges(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prefect's edges and the graph's."""
    here = Version("now", None)
    run(here, options.pipeline, folder, options.set)
    command = [str(RLHF), "graph", str(options.pipeline), "--workspace", str(folder), "--format", "json"]
    command += [part for assignment in options.set for part in ("--set", assignment)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=here.environment()).stdout
    drawn = {node["id"]: node["predecessors"] for each in json.loads(said)["rounds"] for node in each["nodes"]}
    reported = dict(reported_edges(folder))
    wrong = {
        node: {"graph": before, "prefect": reported.get(node)}
        for node, before in drawn.items()
        if reported.get(node) != before
    }
    wrong |= {node: {"graph": None, "prefect": before} for node, before in reported.items() if node not in drawn}
    count = sum(len(before) for before in drawn.values())
    return {"stages": len(drawn), "edges": count, "differences": wrong}


def reported_edges(workspace: Path) -> Iterator[tuple[str, list[str]]]:
    """Each stage's predecessors by Prefect's API, as ids of nodes."""
    from rlhf_flows.server import PrivateServer
    from rlhf_flows.workspace import Workspace

    with PrivateServer(Workspace.open(workspace)) as server, server.answering():
        from prefect.client.orchestration import get_client

        runs: list[Any] = []
        with get_client(sync_client=True) as client:
            while page := client.read_task_runs(limit=200, offset=len(runs)):
                runs += page
        # Beside the stages there are runs that stand for the flows inside `loop`.
        named = {each.id: re.fullmatch(r"(.*), round (\d+)", each.name) for each in runs}
        nodes = {identity: f"{found[2]}/{found[1]}" for identity, found in named.items() if found}
        for each in runs:
            if each.id in nodes:
                before = {given.id for group in each.task_inputs.values() for given in group if hasattr(given, "id")}
                yield nodes[each.id], sorted(nodes.get(identity, f"no stage {identity}") for identity in before)


Measure = Callable[[Version, argparse.Namespace, Path], dict[str, float]]
MEASURES: dict[str, Measure] = {"start": measure_start, "history": measure_history, "workers": measure_workers}


def main() -> int:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, nargs="?", default=DEMO, help="for `edges` and `start`")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another version, to compare with")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--history", type=int, default=30, help="finished rounds of the long campaign")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    versions = [Version("now", None)]
    if options.before is not None:
        # Where there is none, Python would go on with the installed version, and nobody would see it.
        if not (options.before / "flows" / "rlhf_flows").is_dir():
            parser.error(f"there is no checkout of this project in {options.before}")
        versions.append(Version("before", options.before.absolute()))

    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "edges" in options.parts:
            result["edges"] = measure_edges(options, Path(scratch) / "edges")
            print(f"edges: {result['edges']}", flush=True)
        for part in [part for part in options.parts if part in MEASURES]:
            seen: dict[str, list[dict[str, float]]] = {version.name: [] for version in versions}
            for number in range(options.repeats):
                for version in versions:
                    folder = Path(scratch) / f"{part}-{number}-{version.name}"
                    found = MEASURES[part](version, options, folder)
                    seen[version.name].append(found)
                    shutil.rmtree(folder)
                    print(f"{part} {version.name} {number}: {_words(found)}", flush=True)
            result[part] = {"runs": seen, **_compared(seen)}
            for name, figures in _compared(seen).items():
                print(f"{part} {name}: {_words(figures)}", flush=True)
    if options.json:
        print(json.dumps(result))
    return 1 if result.get("edges", {}).get("differences") else 0


def _compared(seen: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the repeats, and how much of `before` they are now."""
    medians = {
        name: {figure: statistics.median(each[figure] for each in runs) for figure in runs[0]}
        for name, runs in seen.items()
    }
    if "before" in medians:
        before = medians["before"]
        medians["ratio"] = {name: value / before[name] for name, value in medians["now"].items() if name in before}
    return medians


def _words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())
