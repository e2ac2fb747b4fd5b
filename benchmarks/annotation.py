"""Load on the annotators' server: answers a second, how long one takes, and what a SIGKILL in the middle loses.

    python benchmarks/annotation.py --locust LOCUST [--annotators 200] [--seconds 60] [--think 5] [--json]

`rlhf annotate` runs in a process of its own, and Locust (locust.io) plays the annotators of `annotation_users.py`, who
answer as browsers do, think (exponentially distributed, `--think` seconds on average) and answer again. `--locust` is
its program, best from an environment of its own (`pip install locust`). Half way the server is killed and started anew.
Times are Locust's, of answers that were accepted. Lost is what the server had said was accepted and what is not in the
store afterwards; it has to be 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Prompt, Question, Sample
from rlhf_flows.workspace import Workspace

USERS = Path(__file__).with_name("annotation_users.py")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locust", default="locust", help="Locust's program")
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=5.0, help="mean seconds between two answers of an annotator")
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--keep-alive", action="store_true", help="do not kill the server in the middle")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if shutil.which(options.locust) is None:
        parser.error(f"there is no program {options.locust!r}: pip install locust, and name it with --locust")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<28} {value}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Post questions, let everybody answer, compare what was accepted with what is stored."""
    url = Workspace.open(folder).store_url
    with FeedbackStore.open(url) as store:
        QuestionQueue(store).post(Form(), questions(options.questions), campaign="load", round=1)
        people = People(store)
        tokens = [people.invite(f"annotator {number}") for number in range(options.annotators)]
    (folder / "tokens").write_text("\n".join(tokens))
    (folder / "accepted").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(folder, port)
    crowd = annotators(options, folder, port)
    while not (folder / "accepted").stat().st_size and crowd.poll() is None:
        time.sleep(0.1)
    if not options.keep_alive:
        time.sleep(options.seconds / 2)
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start(folder, port)
    if crowd.wait():
        raise SystemExit(f"Locust ended with exit code {crowd.returncode}:\n{(folder / 'log').read_text()[-2000:]}")
    server.terminate()
    server.wait()
    with FeedbackStore.open(url) as store:
        stored = [f"{answer.feedback.annotator}\t{answer.question.id}" for answer in store.answers()]
    accepted = (folder / "accepted").read_text().splitlines()
    with (folder / "load_stats.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["Name"] == "accepted")
    return {
        "annotators": options.annotators,
        "answers accepted": len(accepted),
        "answers a second": round(float(row["Requests/s"]), 1),
        "median ms": round(float(row["Median Response Time"])),
        "p99 ms": round(float(row["99%"])),
        "slowest ms": round(float(row["Max Response Time"])),
        "lost": len(set(accepted) - set(stored)),
        "stored twice": len(stored) - len(set(stored)),
        # The kill can hit between the commit and the reply: such an answer is there, and the page sends it again.
        "stored, reply never came": len(set(stored) - set(accepted)),
    }


def annotators(options: argparse.Namespace, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Locust, which starts all annotators within some seconds and counts from when they are there."""
    command = [
        options.locust, "--locustfile", str(USERS), "--headless", "--users", str(options.annotators),
        "--spawn-rate", "50", "--reset-stats", "--run-time", f"{options.seconds:.0f}s", "--exit-code-on-error", "0",
        "--host", f"http://127.0.0.1:{port}", "--csv", str(folder / "load"), "--only-summary",
    ]  # fmt: skip
    environment = {
        **os.environ, "ANNOTATION_TOKENS": str(folder / "tokens"), "ANNOTATION_ACCEPTED": str(folder / "accepted"),
        "ANNOTATION_THINK": str(options.think),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def questions(n: int) -> list[Question]:
    """Pairs of short texts."""
    found = []
    for number in range(n):
        prompt = Prompt(text=f"Write a headline for article {number}.")
        samples = tuple(Sample(prompt_id=prompt.id, text=f"Headline {letter} of {number}") for letter in "ab")
        found.append(Question(prompt=prompt, samples=samples, wanted=2))
    return found


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """`rlhf annotate`, as a person starts it."""
    rlhf = str(Path(sys.executable).with_name("rlhf"))
    command = [rlhf, "annotate", "--port", str(port), "--workspace", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)


if __name__ == "__main__":
    main()
