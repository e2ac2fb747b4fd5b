"""What `rlhf doctor` looks at: versions, the workspace, the hardware, the servers."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from rlhf_core.errors import RlhfError

GIGABYTE = 10**9
LITTLE_DISK = 5 * GIGABYTE
"""A campaign on a small model needs about one gigabyte; checkpoints of larger ones need several."""
LITTLE_MEMORY = 4 * GIGABYTE
PATIENCE = 3.0
"""Seconds that a server has to answer."""

TESTED = {
    "accelerate": "1.15.0", "datasets": "5.2.0", "fastapi": "0.150.0", "mlflow": "3.17.2", "peft": "0.21.2",
    "prefect": "3.8.8", "pydantic": "2.14.3", "sqlalchemy": "2.0.58", "torch": "2.13.0", "transformers": "5.23.0",
    "trl": "1.16.0",
}  # fmt: skip
"""The set of versions that is tested together (constraints.txt), as far as it matters."""

CONSEQUENCES = {
    "fastapi": "FastAPI 0.151 dropped an argument that Prefect's server needs: no flow can start.",
    "mlflow": "MLflow and Prefect must agree on their dependencies.",
    "prefect": "MLflow and Prefect must agree on their dependencies.",
    "sqlalchemy": "With SQLAlchemy 2.1 Prefect's scheduler cannot write its runs: `rlhf serve --cron` never fires.",
}
"""What happens outside the range that the distribution asks for, where pip's own words do not say it."""


class Symptom(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "broken"]
    what: str
    remedy: str = ""


def examine(workspace: Path, environment: Mapping[str, str] | None = None) -> list[Symptom]:
    """Everything, in the order in which it should be put right."""
    environment = os.environ if environment is None else environment
    parts: list[Callable[[], Iterator[Symptom]]] = [
        python_version,
        lambda: package_versions(_requirements(), metadata.version),
        lambda: workspace_state(workspace),
        hardware,
        lambda: servers(environment),
    ]
    found: list[Symptom] = []
    for part in parts:
        try:
            found += part()
        except Exception as error:  # a doctor who faints helps nobody
            found.append(Symptom("doctor", "broken", f"{type(error).__name__}: {error}"))
    return found


def python_version() -> Iterator[Symptom]:
    """Which Python; pip refuses to install us into one that is too old."""
    yield Symptom("python", "ok", f"{platform.python_version()} ({sys.executable})")


def package_versions(requirements: list[Requirement], version_of: Callable[[str], str]) -> Iterator[Symptom]:
    """Every requirement of this distribution against what is installed."""
    untested = []
    fine = 0
    for requirement in requirements:
        name = requirement.name
        install = f"pip install -c constraints.txt '{requirement}'"
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:
            yield Symptom(name, "broken", "is not installed", f"Run {install}.")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            consequence = CONSEQUENCES.get(name, "")
            yield Symptom(
                name,
                "broken",
                f"{version} is outside {requirement.specifier}. {consequence}".strip(),
                f"Run {install}.",
            )
            continue
        fine += 1
        if name in TESTED and _release(version) != _release(TESTED[name]):
            untested.append(f"{name} {version} (tested: {TESTED[name]})")
    yield Symptom("packages", "ok", f"{fine} of {len(requirements)} required packages are in their ranges")
    if untested:
        yield Symptom(
            "packages",
            "warning",
            f"not the tested set: {', '.join(untested)}",
            "Should something fail, install the tested set: pip install -c constraints.txt -e .",
        )


def workspace_state(workspace: Path) -> Iterator[Symptom]:
    """Writable, with room. Leaves nothing behind where there was no workspace."""
    from rlhf_flows.workspace import Workspace

    place = workspace.absolute()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    try:
        if place.exists():
            Workspace.open(place)
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0" * 4096)
    except RlhfError as error:
        yield Symptom("workspace", "broken", str(error.what), error.remedy)
        return
    except OSError as error:
        yield Symptom(
            "workspace",
            "broken",
            f"{existing} cannot be written: {error.strerror}",
            "Choose another folder with --workspace or RLHF_WORKSPACE.",
        )
        return
    yield Symptom("workspace", "ok", f"{place}{'' if place.exists() else ' (will be created)'}")
    free = shutil.disk_usage(existing).free
    room = f"{free / GIGABYTE:.0f} GB free"
    if free < LITTLE_DISK:
        yield Symptom("disk", "warning", room, "Checkpoints and models need some GB; a full disk stops a run safely.")
    else:
        yield Symptom("disk", "ok", room)


def hardware() -> Iterator[Symptom]:
    """Cores, memory, accelerator, and the number format chosen, with the reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Symptom("cores", "ok", f"{cores} usable")
    memory = _memory()
    if memory is not None:
        text = f"{memory / GIGABYTE:.0f} GB"
        if memory < LITTLE_MEMORY:
            yield Symptom("memory", "warning", text, "Lower `batch_size` in policy and optimizer if a run is killed.")
        else:
            yield Symptom("memory", "ok", text)
    import torch

    from rlhf_core.lm.dtypes import choose_dtype
    from rlhf_core.lm.loading import best_device

    yield Symptom("device", "ok", f"{best_device()} (torch {torch.__version__}, {torch.get_num_threads()} threads)")
    yield Symptom("number format", "ok", choose_dtype()[1])


def servers(environment: Mapping[str, str]) -> Iterator[Symptom]:
    """Those that the environment names answer; the others are files in the workspace."""
    for name, variable, suffix in (
        ("mlflow", "RLHF_MLFLOW_URI", "/health"),
        ("prefect", "PREFECT_API_URL", "/health"),
    ):
        uri = environment.get(variable)
        if not uri:
            yield Symptom(name, "ok", f"in the workspace ({variable} is not set)")
        elif not uri.startswith(("http://", "https://")):
            yield Symptom(name, "ok", f"{uri} (not a server; not tried)")
        else:
            try:
                urllib.request.urlopen(uri.rstrip("/") + suffix, timeout=PATIENCE).close()
                yield Symptom(name, "ok", f"{uri} answers")
            except urllib.error.HTTPError as error:
                yield Symptom(name, "warning", f"{uri} answers with status {error.code}", "It may want a login.")
            except (urllib.error.URLError, OSError, ValueError) as error:
                yield Symptom(name, "broken", f"{uri} does not answer: {error}", f"Start it, or correct {variable}.")


def _requirements() -> list[Requirement]:
    """What this distribution asks for, without its extras."""
    found = [Requirement(text) for text in metadata.requires("rlhf-pipeline") or []]
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate()]


def _release(version: str) -> tuple[int, ...]:
    """The version without what a build adds (`2.13.0+cpu`)."""
    return Version(version).release


def _memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or less where a container limits it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text)) if text.isdecimal() else total
