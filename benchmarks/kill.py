"""SIGKILL in the middle of a campaign's stages: the same command goes on, and the final weights are the same.

Runs one pipeline uninterrupted, then once more in a fresh workspace where the process is killed `--kills` times: at a
random moment of a stage of every name, and then of stages drawn by how long they take. Prints the stage that each kill
hit and the digests of both final policies; exits with 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

RLHF = Path(sys.executable).with_name("rlhf")


def command(pipeline: Path, workspace: Path, sets: list[str]) -> list[str]:
    """The command that is run, killed, and run again."""
    overrides = [part for assignment in sets for part in ("--set", assignment)]
    return [str(RLHF), "run", str(pipeline), "--workspace", str(workspace), "--json", *overrides]


def final_policies(output: str) -> list[str]:
    """Digest of every round's policy, from the JSON object in the last line."""
    return [done["policy"] for done in json.loads(output.strip().splitlines()[-1])["rounds"]]


def seconds_of_stages(workspace: Path) -> dict[str, float]:
    """Cache key -> seconds of work, of every finished stage."""
    from rlhf_flows.artifact_store import ArtifactStore
    from rlhf_flows.campaign.ledger import campaigns

    store = ArtifactStore(str(workspace / "artifacts"), workspace / "scratch")
    rounds = [done for campaign in campaigns(store) for done in campaign.rounds]
    return {stage.key: stage.result.seconds for done in rounds for stage in done.stages.values()}


def targets(stages: dict[str, float], kills: int, rng: random.Random) -> list[str]:
    """Keys of the stages to be hit: one of each name, then, where kills are left, long ones before short ones."""
    names: dict[str, list[str]] = {}
    for key in sorted(stages):
        names.setdefault(key.rpartition("-")[0], []).append(key)
    chosen = [rng.choice(keys) for keys in names.values()]
    chosen.sort(key=lambda key: -stages[key])
    left = [key for key in sorted(stages) if key not in chosen]
    while len(chosen) < kills and left:
        (drawn,) = rng.choices(left, [stages[key] + 0.01 for key in left])
        left.remove(drawn)
        chosen.append(drawn)
    return chosen[:kills]


def stages_under_way(workspace: Path, since: float) -> list[str]:
    """Keys of the stages that have a draft, made after the moment `since`: what an earlier kill left does not count."""
    found = []
    for path in (workspace / "scratch" / "drafts").glob("*"):
        with suppress(FileNotFoundError):
            if path.is_dir() and path.stat().st_ctime > since:  # beside each draft lies its lock
                found.append(path.name.rpartition("-")[0])  # behind the key stands what tells drafts apart
    return sorted(found)


def main() -> int:
    """Run both campaigns and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path, nargs="?", default=Path("deployments/pipelines/newsroom.yaml"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        started = time.monotonic()
        expected = final_policies(
            subprocess.run(
                command(options.pipeline, whole, options.set), check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        )
        seconds = time.monotonic() - started
        print(f"uninterrupted: {seconds:.0f} s, final policy {expected[-1][:16]}", flush=True)

        stages = seconds_of_stages(whole)
        waiting = set(targets(stages, options.kills, rng))
        hits: list[str] = []
        while waiting:
            began = time.time()
            with subprocess.Popen(
                command(options.pipeline, killed, options.set),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as process:
                reached = _wait_for(waiting, killed, began, process)
                if reached is None:
                    break
                # Of a stage's seconds, some pass before it has a draft, and after that.
                _stay_in(reached, killed, began, 0.6 * rng.random() * stages[reached])
                hit = ", ".join(stages_under_way(killed, began)) or "between stages"
                os.kill(process.pid, signal.SIGKILL)
            waiting.discard(reached)
            hits.append(hit)
            print(f"kill {len(hits):2}: in {hit}", flush=True)
        finished = subprocess.run(
            command(options.pipeline, killed, options.set), check=True, stdout=subprocess.PIPE, text=True
        )
        found = final_policies(finished.stdout)
        if waiting:
            print(f"never reached: {', '.join(sorted(waiting))}")
        same = found == expected and len(hits) > 0
        print(f"after {len(hits)} kills: final policy {found[-1][:16]}: {'identical' if same else 'DIFFERENT'}")
        if options.json:
            print(json.dumps({"kills": hits, "expected": expected, "found": found, "identical": same}))
        return 0 if same else 1


def _wait_for(waiting: set[str], workspace: Path, since: float, process: subprocess.Popen[bytes]) -> str | None:
    """The first of the stages in `waiting` that the process works on; None where it ends before."""
    while process.poll() is None:
        if found := waiting.intersection(stages_under_way(workspace, since)):
            return found.pop()
        time.sleep(0.002)
    return None


def _stay_in(stage: str, workspace: Path, since: float, seconds: float) -> None:
    """Let time pass, but no more than the stage takes: a faster machine than before would leave it, and the next."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and stage in stages_under_way(workspace, since):
        time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main())
