"""Control from preferences alone: true return, comparisons used and wall time of whole campaigns, several seeds each.

    python benchmarks/control.py [--seeds 5] [--optimizers control_ppo control_dqn] [--peer PYTHON] [--json]

Every campaign is `rlhf run PIPELINE` in a fresh workspace. The return is that of the champion after the last round: the
mean over the pipeline's held-out episodes of the environment's own rewards, which training never sees. `wrong raters`
is the check that the answers matter: one campaign whose raters always answer the wrong way round. `--peer` is the
Python of an environment that has the package `imitation` (see `imitation_peer.py`), which gets as many comparisons,
wrong answers and environment steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.pipeline.yaml_source import Document

RLHF = Path(sys.executable).with_name("rlhf")
PEER = Path(__file__).with_name("imitation_peer.py")
Found = dict[str, Any]


def campaign(pipeline: Path, seed: int, *sets: str) -> Found:
    """One campaign: what its champion is worth, and what that took."""
    overrides = [part for assignment in (f"seed={seed}", *sets) for part in ("--set", assignment)]
    with tempfile.TemporaryDirectory(prefix="rlhf-control-") as workspace:
        command = [str(RLHF), "run", str(pipeline), "--workspace", workspace, "--json", *overrides]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        rounds = json.loads(done.stdout.strip().splitlines()[-1])["rounds"]
        with FeedbackStore.open(f"sqlite:///{Path(workspace).absolute() / 'feedback.db'}") as store:
            comparisons = store.counts().kinds["comparison"]
    returns = [round_["metrics"]["true_return"] for round_ in rounds]
    champion = max(number for number, round_ in enumerate(rounds) if round_["promoted"])
    return {
        "seed": seed,
        "true_return": returns[champion]["value"],
        "low": returns[champion]["low"],
        "high": returns[champion]["high"],
        "episodes": returns[champion]["n"],
        "start": returns[0]["value"],
        "rounds": [found["value"] for found in returns],
        "comparisons": comparisons,
        "seconds": seconds,
    }


def peer(python: Path, seed: int, like: Found, flip: float, steps: int) -> Found:
    """One run of `imitation`."""
    options = {"seed": seed, "comparisons": like["comparisons"], "flip": flip, "steps": steps,
               "episodes": like["episodes"]}  # fmt: skip
    command = [str(python), str(PEER), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {"seed": seed, **json.loads(done.stdout.strip().splitlines()[-1])}


def show(name: str, found: Found) -> None:
    """One line of the table."""
    interval = f"[{found['low']:.1f}, {found['high']:.1f}]" if "low" in found else f"sd {found['std']:.1f}"
    print(
        f"{name:14}{found['seed']:>6}{found['true_return']:>12.1f}{interval:>20}{found['comparisons']:>13}"
        f"{found['seconds']:>9.0f}",
        flush=True,
    )


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=Path("deployments/pipelines/cartpole.yaml"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--optimizers", nargs="*", default=["control_ppo", "control_dqn"])
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--wrong-raters", action="store_true", help="also one campaign in which all answers are wrong")
    parser.add_argument("--peer", type=Path, help="Python of an environment with the package imitation")
    parser.add_argument("--peer-steps", type=int, default=360_000, help="environment steps of the peer")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print(f"{'':14}{'seed':>6}{'true return':>12}{'':>20}{'comparisons':>13}{'seconds':>9}")
    runs: dict[str, list[Found]] = {}
    for name in options.optimizers:
        for seed in seeds:
            runs.setdefault(name, []).append(campaign(options.pipeline, seed, f"optimize.use={name}", *options.set))
            show(name, runs[name][-1])
    if options.wrong_raters:
        wrong = campaign(options.pipeline, options.first_seed, "ask.annotators.0.flip=1.0", *options.set)
        runs["wrong raters"] = [wrong]
        show("wrong raters", wrong)
    if options.peer:
        flip = float(Document(options.pipeline).data["ask"]["annotators"][0]["flip"])
        like = next(iter(runs.values()))[0]
        for seed in seeds:
            runs.setdefault("imitation", []).append(peer(options.peer, seed, like, flip, options.peer_steps))
            show("imitation", runs["imitation"][-1])
    else:
        print("imitation: not run; give --peer the Python of an environment that has it")
    for name, found in runs.items():
        values = [run["true_return"] for run in found]
        print(f"{name:14} mean {statistics.fmean(values):.1f}, lowest {min(values):.1f}, over {len(values)} seeds")
    if options.json:
        print(json.dumps({"benchmark": "control", "pipeline": options.pipeline.stem, "runs": runs}))


if __name__ == "__main__":
    main()
