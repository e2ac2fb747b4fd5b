"""SIGKILL at random moments of a campaign: the same command goes on, and the final weights are the same.

Runs one pipeline uninterrupted, then once more in a fresh workspace where the process is killed at `--kills` random
moments. Prints the stage that each kill hit and the digests of both final policies; exits with 1 where they differ.
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
from pathlib import Path

RLHF = Path(sys.executable).with_name("rlhf")


def command(pipeline: Path, workspace: Path, sets: list[str]) -> list[str]:
    """The command that is run, killed, and run again."""
    overrides = [part for assignment in sets for part in ("--set", assignment)]
    return [str(RLHF), "run", str(pipeline), "--workspace", str(workspace), "--json", *overrides]


def final_policies(output: str) -> list[str]:
    """Digest of every round's policy, from the JSON object in the last line."""
    return [done["policy"] for done in json.loads(output.strip().splitlines()[-1])["rounds"]]


def stage_under_way(workspace: Path) -> str:
    """The newest stage that has a draft, for the report of what a kill hit."""
    drafts = list((workspace / "artifacts" / ".drafts").glob("*"))
    newest = max(drafts, key=lambda path: path.stat().st_mtime, default=None)
    return newest.name.partition("-")[0] if newest else "between stages"


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

        moments = sorted(rng.uniform(0.05, 0.98) * seconds for _ in range(options.kills))
        gaps = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
        hits = []
        for kill, gap in enumerate(gaps, start=1):
            with subprocess.Popen(
                command(options.pipeline, killed, options.set),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as process:
                # Every start costs some seconds before it reaches new work; the gap counts from there.
                _wait_for_work(killed, process, gap)
                hit = stage_under_way(killed)
                os.kill(process.pid, signal.SIGKILL)
            hits.append(hit)
            print(f"kill {kill:2}: in {hit}", flush=True)
        finished = subprocess.run(
            command(options.pipeline, killed, options.set), check=True, stdout=subprocess.PIPE, text=True
        )
        found = final_policies(finished.stdout)
        same = found == expected
        print(f"after {len(hits)} kills: final policy {found[-1][:16]}: {'identical' if same else 'DIFFERENT'}")
        if options.json:
            print(json.dumps({"kills": hits, "expected": expected, "found": found, "identical": same}))
        return 0 if same else 1


def _wait_for_work(workspace: Path, process: subprocess.Popen[bytes], seconds: float) -> None:
    drafts = workspace / "artifacts" / ".drafts"
    old = set(drafts.glob("*"))
    while process.poll() is None and not set(drafts.glob("*")) - old:
        time.sleep(0.05)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
