"""What orchestration and tracking cost: the wall time of a campaign that no stage accounts for.

Runs a pipeline in a fresh workspace and prints the seconds until the first stage starts (cold, then once more with
everything cached: warm), the seconds inside stages, and the share of the time after start-up that is neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RLHF = Path(sys.executable).with_name("rlhf")


def run(pipeline: Path, workspace: Path, sets: list[str]) -> tuple[float, float]:
    """Seconds until the first stage, and in all."""
    overrides = [part for assignment in sets for part in ("--set", assignment)]
    started = time.monotonic()
    first = None
    command = [str(RLHF), "run", str(pipeline), "--workspace", str(workspace), *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and "·" in line:  # the heading of the first round
                first = time.monotonic() - started
    if process.returncode or first is None:
        raise SystemExit(f"the run failed: {' '.join(command)}")
    return first, time.monotonic() - started


def seconds_in_stages(workspace: Path) -> float:
    """The work itself, as the stages' stored results tell it."""
    results = [json.loads(path.read_text()) for path in (workspace / "prefect" / "storage").iterdir()]
    return sum(json.loads(json.loads(result["result"]))["seconds"] for result in results)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path, nargs="?", default=Path("deployments/pipelines/newsroom.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cold, total = run(options.pipeline, Path(folder), options.set)
        work = seconds_in_stages(Path(folder))
        warm, again = run(options.pipeline, Path(folder), options.set)
    found = {
        "first_stage_cold_s": cold,
        "first_stage_warm_s": warm,
        "total_s": total,
        "in_stages_s": work,
        "overhead_share": (total - cold - work) / (total - cold),
        "all_cached_s": again,
    }
    for name, value in found.items():
        print(f"{name:20} {value:8.3f}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
