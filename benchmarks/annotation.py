"""Load on the annotators' server: answers a second, how long one takes, and what a SIGKILL in the middle loses.

`python benchmarks/annotation.py --annotators 200 --seconds 60 --think 2` runs `rlhf annotate` in a process of its own;
every simulated annotator answers as a browser does, thinks (exponentially distributed, `--think` seconds on average)
and answers again. Half way the server is killed and started anew. Lost is what the server had said was accepted and
what is not in the store afterwards; it has to be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Prompt, Question, Sample
from rlhf_flows.workspace import Workspace


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds between two answers of an annotator")
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--keep-alive", action="store_true", help="do not kill the server in the middle")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder)))
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<28} {value}")


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Post questions, let everybody answer, compare what was accepted with what is stored."""
    url = Workspace.open(folder).store_url
    with FeedbackStore.open(url) as store:
        QuestionQueue(store).post(Form(), questions(options.questions), campaign="load", round=1)
        people = People(store)
        tokens = [people.invite(f"annotator {number}") for number in range(options.annotators)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(folder, port)
    accepted: list[str] = []
    latencies: list[float] = []
    there = asyncio.Barrier(options.annotators + 1)
    crowd = [asyncio.create_task(annotator(token, port, options, there, accepted, latencies)) for token in tokens]
    await there.wait()
    begin = time.monotonic()
    if not options.keep_alive:
        await asyncio.sleep(options.seconds / 2)
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start(folder, port)
    await asyncio.gather(*crowd)
    took = time.monotonic() - begin
    server.terminate()
    server.wait()
    with FeedbackStore.open(url) as store:
        stored = [f"{answer.feedback.annotator}\t{answer.question.id}" for answer in store.answers()]
    latencies.sort()
    return {
        "annotators": options.annotators,
        "answers accepted": len(accepted),
        "answers a second": round(len(accepted) / took, 1),
        "median ms": round(1000 * latencies[len(latencies) // 2], 1),
        "p99 ms": round(1000 * latencies[int(0.99 * len(latencies))], 1),
        "slowest ms": round(1000 * latencies[-1], 1),
        "lost": len(set(accepted) - set(stored)),
        "stored twice": len(stored) - len(set(stored)),
        # The kill can hit between the commit and the reply: such an answer is there, and the page sends it again.
        "stored, reply never came": len(set(stored) - set(accepted)),
    }


async def annotator(
    token: str,
    port: int,
    options: argparse.Namespace,
    there: asyncio.Barrier,
    accepted: list[str],
    latencies: list[float],
) -> None:
    """One person: answers, thinks, and tries again where the server is away, as the page does."""
    name = ""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, follow_redirects=True) as client:
        await asyncio.sleep(random.random() * options.think)
        page = await until(lambda: client.get(f"/join/{token}"))
        client.headers["x-rlhf-csrf"] = re.search('name="csrf" content="(.*?)"', page.text)[1]  # type: ignore[index]
        name = re.search('class="who">(.*?)<', page.text)[1]  # type: ignore[index]
        item = (await until(lambda: client.get("/api/next"))).json()["item"]
        await there.wait()
        end = time.monotonic() + options.seconds
        while item is not None and time.monotonic() < end:
            await asyncio.sleep(min(random.expovariate(1 / options.think), max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                break
            given = {"view": "pair", "choice": random.choice(["first", "second", "tie"]), "seconds": 1.0}
            content = {"form": item["form"], "question": item["question"], "given": given, "draft": {}}
            reply = await until(lambda content=content: client.post("/api/answer", json=content), latencies)
            accepted.append(f"{name}\t{item['question']}")
            item = reply.json()["item"]


async def until(request: object, latencies: list[float] | None = None) -> httpx.Response:
    """The response to `request`, repeated while the server is away; the time of the successful try is noted."""
    while True:
        begin = time.monotonic()
        try:
            response: httpx.Response = await request()  # type: ignore[operator]
        except httpx.TransportError:
            await asyncio.sleep(0.5)
            continue
        if response.status_code in (429, 503):
            await asyncio.sleep(float(response.headers.get("retry-after", 1)))
            continue
        response.raise_for_status()
        if latencies is not None:
            latencies.append(time.monotonic() - begin)
        return response


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
