"""Clusters on this machine, each node a process of its own in a folder of its own: Dask and Ray, thrown away after."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from prefect_api import free_port

BESIDE = Path(sys.executable).parent
STARTING = 120.0
"""Seconds until a cluster that does not answer is given up."""


def installed(package: str) -> bool:
    """Whether the extra for a cluster is there."""
    return importlib.util.find_spec(package) is not None


@contextmanager
def dask_cluster(home: Path, env: Mapping[str, str], workers: int = 2, resources: str = "") -> Iterator[str]:
    """The address of a Dask scheduler with workers of one thread, each started in an empty folder below `home`."""
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = ["dask", "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]
    worker = ["dask", "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard", "--local-directory"]
    more = ["--resources", resources] if resources else []
    with _processes() as started:
        started.append(_start(scheduler, home / "scheduler", env))
        for number in range(workers):
            folder = home / f"worker-{number}"
            started.append(_start([*worker, str(folder), *more], folder, env))
        _until_dask(address, workers, home)
        yield address


@contextmanager
def ray_cluster(env: Mapping[str, str], nodes: int = 2) -> Iterator[str]:
    """The address of a Ray cluster whose nodes have one CPU each."""
    home = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short path
    address = f"127.0.0.1:{free_port()}"
    quiet = {**env, "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0"}
    start = ["ray", "start", "--block", "--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000"]
    head = [
        *("--head", "--port", address.rpartition(":")[2], "--temp-dir", str(home / "t")),
        *("--include-dashboard", "false", "--disable-usage-stats", "--ray-client-server-port", str(free_port())),
    ]
    with _processes() as started:
        started.append(_start([*start, *head], home / "head", quiet))
        _until_ray(address, 1, home)
        for number in range(1, nodes):
            started.append(_start([*start, "--address", address], home / f"node-{number}", quiet))
        _until_ray(address, nodes, home)
        yield address


@contextmanager
def _processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended afterwards, with everything that they started."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        tree = []
        for process in reversed(started):
            with suppress(psutil.NoSuchProcess):
                tree += [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in tree:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(tree, timeout=10)
        for process in started:
            process.wait(10)


def _start(command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [str(BESIDE / command[0]), *command[1:]],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _until_dask(address: str, workers: int, home: Path) -> None:
    from distributed import Client

    with Client(address, timeout=STARTING, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=STARTING)


def _until_ray(address: str, nodes: int, home: Path) -> None:
    """Asked in a process of its own: a driver that has met one cluster does not forget it."""
    ask = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level=50); print(len(ray.nodes()))"
    deadline = time.monotonic() + STARTING
    while True:
        found = subprocess.run([sys.executable, "-c", ask, address], capture_output=True, text=True, timeout=STARTING)
        if found.returncode == 0 and int(found.stdout.split()[-1]) >= nodes:
            return
        said = "".join(path.read_text() for path in home.glob("*/log"))
        assert time.monotonic() < deadline, f"the Ray cluster does not start:\n{found.stderr[-800:]}\n{said[-2000:]}"
        time.sleep(1)
