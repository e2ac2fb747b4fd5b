"""How fast the feedback store accepts answers and writes snapshots, and how much memory each takes.

    python benchmarks/store.py [--sizes 10000 100000] [--full] [--url URL] [--json]

Answers are comparisons by five annotators of pairs of short texts, five to a question. Making them is not counted in
the time of the inserts. Each step runs in a process of its own, whose peak memory is then its alone; `baseline` is that
of a process that has only imported what the step needs. `private` is the peak of what only this process holds (sampled,
Linux): a memory-mapped snapshot counts in `peak` as far as it was read, although the system can take it back any time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.store import BATCH, FeedbackStore
from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample

SIZES = (10_000, 100_000)
FULL = 1_000_000
ANNOTATORS = 5
WORDS = ("council", "votes", "park", "budget", "river", "school", "bridge", "storm", "market", "plan", "late")


def made_answers(n: int) -> Iterator[Answer]:
    """`n` answers, the same ones every time."""
    dice = random.Random(0)
    for number in range(-(-n // ANNOTATORS)):
        prompt = Prompt(text=f"Article {number}: {' '.join(dice.choices(WORDS, k=40))}")
        first, second = (Sample(prompt_id=prompt.id, text=" ".join(dice.choices(WORDS, k=12))) for _ in range(2))
        question = Question(prompt=prompt, samples=(first, second))
        for annotator in range(min(ANNOTATORS, n - number * ANNOTATORS)):
            yield Answer(
                question=question,
                feedback=Comparison(
                    question_id=question.id,
                    first=first.id,
                    second=second.id,
                    choice=dice.choice(["first", "second", "tie"]),
                    annotator=f"rater {annotator}",
                    source="simulated",
                ),
            )


def insert(url: str, n: int) -> dict[str, float]:
    """Add `n` answers; the time in `add` alone."""
    answers = made_answers(n)
    seconds = 0.0
    with FeedbackStore(url) as store:
        inserted = 0
        while batch := [answer for _, answer in zip(range(BATCH), answers, strict=False)]:
            start = time.perf_counter()
            inserted += store.add(batch).inserted
            seconds += time.perf_counter() - start
    assert inserted == n, f"{inserted} of {n} answers were stored"
    return {"seconds": seconds, "per_second": n / seconds}


def snapshot(url: str, n: int, folder: Path) -> dict[str, float]:
    """Write everything to `folder`."""
    with FeedbackStore(url) as store:
        start = time.perf_counter()
        found = store.snapshot(folder)
        seconds = time.perf_counter() - start
    assert found.rows == n
    return {"seconds": seconds, "per_second": n / seconds}


def split(folder: Path) -> dict[str, float]:
    """Open the snapshot and take its training split."""
    start = time.perf_counter()
    train = FeedbackSet.open(folder).split("train")
    train.annotators()
    return {"seconds": time.perf_counter() - start, "rows": float(len(train))}


def iterate(folder: Path, n: int) -> dict[str, float]:
    """Read every answer of the snapshot as records."""
    start = time.perf_counter()
    assert sum(1 for _ in FeedbackSet.open(folder).answers()) == n
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "per_second": n / seconds}


def baseline() -> dict[str, float]:
    """Import everything, do nothing."""
    import datasets  # noqa: F401
    import pyarrow  # noqa: F401

    return {"seconds": 0.0}


def step(name: str, url: str, n: int, folder: Path) -> dict[str, float]:
    """One step in this process, with the peak of its resident memory in MiB."""
    steps: dict[str, Any] = {
        "baseline": baseline,
        "insert": lambda: insert(url, n),
        "snapshot": lambda: snapshot(url, n, folder),
        "split": lambda: split(folder),
        "iterate": lambda: iterate(folder, n),
    }
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, private_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = steps[name]()
    done.set()
    watcher.join()
    peak = max(peak, private_mib())
    return {**result, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "private_mib": peak}


def private_mib() -> float:
    """Anonymous resident memory of this process in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(url: str | None, n: int) -> dict[str, dict[str, float]]:
    """All steps at size `n`, each in a process of its own."""
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        address = url or f"sqlite:///{scratch}/feedback.db"
        for name in ("baseline", "insert", "snapshot", "split", "iterate"):
            command = [sys.executable, __file__, "--step", name, "--url", address, "--folder", scratch]
            command += ["--sizes", str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
    return results


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of answers")
    parser.add_argument("--full", action="store_true", help=f"also {FULL:,} answers (minutes)")
    parser.add_argument("--url", help="an empty database instead of an SQLite file; only with one size")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.url, options.sizes[0], options.folder)))
        return
    sizes = [*options.sizes, FULL] if options.full else options.sizes
    if options.url and len(sizes) > 1:
        parser.error("--url needs an empty database, so it goes with one size only")
    found: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'answers':>9}  {'step':<9} {'seconds':>8} {'answers/s':>10} {'peak MiB':>9} {'private':>8}")
    for n in sizes:
        found[str(n)] = measure(options.url, n)
        for name, result in found[str(n)].items():
            rate = f"{result['per_second']:,.0f}" if "per_second" in result else ""
            print(
                f"{n:>9,}  {name:<9} {result['seconds']:>8.2f} {rate:>10} {result['peak_mib']:>9.0f}"
                + f" {result['private_mib']:>8.0f}",
                flush=True,
            )
    if options.json:
        print(json.dumps({"benchmark": "store", "sizes": found}))


if __name__ == "__main__":
    main()
