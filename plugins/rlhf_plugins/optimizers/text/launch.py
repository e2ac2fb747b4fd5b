"""Training in several processes, as the one sees it that waits for them.

`accelerate launch` starts the workers (see `worker`), with whatever its configuration file and environment say. This
process keeps the reward, the log and the checkpoints' owner; process 0 of the workers asks and tells it over a socket,
one JSON object a line.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import JsonValue

from rlhf_core import errors
from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import LanguageModelPolicy, OptimizeJob, Optimizer, Plugin
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.optimizers.text.settings import Fsdp
from rlhf_plugins.trainee import read_weights, trainable

JOB, SOCKET, VALUE, TRAINED, OUTPUT = "job.json", "socket", "value", "trained.safetensors", "output.txt"
SHOWN_OUTPUT = 1500
"""Characters of the workers' last words that an error shows."""
PATIENCE = 20.0
"""Seconds that workers have to end by themselves."""


def optimize_in_processes(optimizer: Optimizer, job: OptimizeJob) -> dict[str, Metric]:
    """What `optimizer.train(job)` does, by `config.processes` workers; afterwards `job.policy` has their weights.

    Raises what a worker or the reward raised; TrainingError with their output where they ended without a word.
    """
    assert isinstance(job.policy, LanguageModelPolicy)
    assert isinstance(job.reference, LanguageModelPolicy)
    if optimizer.config.accelerate is not None:
        check_file(optimizer.config.accelerate, optimizer.config.fsdp)
    with tempfile.TemporaryDirectory(prefix="rlhf-") as name:
        folder = Path(name)
        _write_job(folder, optimizer, job)
        with _elsewhere(job.policy, job.reference), _workers(folder, optimizer) as lines:
            metrics = _serve(lines, optimizer, job, folder)
        weights = trainable(job.policy.lm.model)
        if not read_weights(weights, folder / TRAINED):
            raise TrainingError("the processes trained other weights than this one has", where=type(optimizer).__name__)
    return metrics


def importable(plugin: Plugin) -> str:
    """`module:Class` of a plugin. Raises TrainingError where another process could not import it."""
    kind = type(plugin)
    if "<" in kind.__qualname__ or kind.__module__ == "__main__":
        raise TrainingError(
            f"other processes cannot import {kind.__qualname__}",
            where=kind.__module__,
            remedy="Define the class in a module of an installed package, or train in one process.",
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def imported(name: str) -> Any:
    """The class that `importable` named."""
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    return found


def _write_job(folder: Path, optimizer: Optimizer, job: OptimizeJob) -> None:
    """Everything that a worker needs but the reward."""
    parts: dict[str, JsonValue] = {}
    for name, plugin in (("optimizer", optimizer), ("policy", job.policy), ("reference", job.reference)):
        parts[name] = {"class": importable(plugin), "config": plugin.config.model_dump(mode="json")}
    for name, policy in (("policy", job.policy), ("reference", job.reference)):
        (folder / name).mkdir()
        policy.save(folder / name)
        parts[name] |= {"version": policy.version, "round": policy.round}  # type: ignore[operator]
    wanted = getattr(optimizer.config, "value_start", "policy") == "reward"
    start = job.need_reward().value_start(job.policy) if wanted else None
    if start is not None:
        (folder / VALUE).mkdir()
        start.save(folder / VALUE)
    run = optimizer.run
    described = {
        **parts,
        "run": {"seed": run.seed, "store_url": run.store_url, "pipeline": run.pipeline, "round": run.round},
        "checkpoints": run.checkpoints.folder and str(run.checkpoints.folder),
        "previous": job.previous and str(job.previous),
        "keep": job.keep and str(job.keep),
        "prompts": [prompt.model_dump(mode="json") for prompt in job.prompts],
        "demonstrations": [answer.model_dump(mode="json") for answer in job.demonstrations],
    }
    (folder / JOB).write_text(json.dumps(described), encoding="utf-8")


@contextlib.contextmanager
def _elsewhere(*policies: LanguageModelPolicy) -> Iterator[None]:
    """Leave the accelerator's memory to the workers inside."""
    places = [policy.lm.device for policy in policies]
    for policy, place in zip(policies, places, strict=True):
        if place.type != "cpu":
            policy.lm.model.to("cpu")
    try:
        yield
    finally:
        for policy, place in zip(policies, places, strict=True):
            if place.type != "cpu":
                policy.lm.model.to(place)


def command(config: Any, folder: Path) -> list[str]:
    """What starts the workers."""
    options = ["--config_file", str(config.accelerate)] if config.accelerate is not None else []
    if config.fsdp is not None:
        options += fsdp_options(config.fsdp)
    if config.processes > 1:
        options += ["--num_processes", str(config.processes)]
    if config.accelerate is None:
        port = _free_port()
        options += ["--multi_gpu"] if config.fsdp is None else []
        options += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        options += ["--main_process_port", str(port)]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *options]
    return [*launcher, "-m", "rlhf_plugins.optimizers.text.worker", str(folder)]


def check_file(file: Path, fsdp: Fsdp | None) -> None:
    """Raise TrainingError where accelerate's `file` is none, or asks for DeepSpeed and that cannot be."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        asks = settings.get("distributed_type") == "DEEPSPEED"
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise TrainingError(
            f"that is no configuration of accelerate: {error}",
            where=f"optimize.accelerate: {file}",
            remedy="Let `accelerate config --config_file FILE` write one.",
        ) from error
    if asks and fsdp is not None:
        raise TrainingError(
            "accelerate is set to DeepSpeed, and `fsdp` asks for another way to spread the weights",
            where=f"optimize.accelerate: {file}",
            remedy="Drop one of the two.",
        )
    if asks and importlib.util.find_spec("deepspeed") is None:
        raise TrainingError(
            "accelerate is set to DeepSpeed, which is not installed",
            where=f"optimize.accelerate: {file}",
            remedy="`pip install 'rlhf-pipeline[deepspeed]'`, or put `fsdp: {}` under `optimize:`: it spreads weights "
            "like ZeRO 3, without another package.",
        )


def fsdp_options(fsdp: Fsdp) -> list[str]:
    """What tells accelerate's launcher to spread the weights."""
    options = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    options += ["--fsdp_reshard_after_forward", str(fsdp.reshard_after_forward).lower()]
    if fsdp.transformer_cls_names_to_wrap:
        options += ["--fsdp_transformer_layer_cls_to_wrap", ",".join(fsdp.transformer_cls_names_to_wrap)]
    return options


@contextlib.contextmanager
def _workers(folder: Path, optimizer: Optimizer) -> Iterator[IO[str]]:
    """Running workers, and the lines from and to process 0; they are ended on leaving."""
    environment = {"OMP_NUM_THREADS": _threads(optimizer.config.processes), **os.environ}
    # What DeepSpeed builds, it builds with the ninja that is installed beside it.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    with (
        socket.socket(socket.AF_UNIX) as server,
        (folder / OUTPUT).open("w", encoding="utf-8") as output,
    ):
        server.bind(str(folder / SOCKET))
        server.listen(1)
        server.settimeout(0.2)
        launcher = subprocess.Popen(
            command(optimizer.config, folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            connection = None
            while connection is None:
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                if connection is None and launcher.poll() is not None:
                    raise _silent(folder, optimizer)
            connection.settimeout(None)
            with connection, connection.makefile("rw", encoding="utf-8") as lines:
                yield lines
            launcher.wait(PATIENCE)
        finally:
            if launcher.poll() is None:
                launcher.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(PATIENCE)
                launcher.kill()
                launcher.wait()


def _serve(lines: IO[str], optimizer: Optimizer, job: OptimizeJob, folder: Path) -> dict[str, Metric]:
    """Do what process 0 asks for until it is done; its metrics."""
    run = optimizer.run
    for line in lines:
        said, given = json.loads(line)
        if said == "log":
            run.log(given["metrics"], given["step"])
        elif said == "progress":
            run.progress(*given)
        elif said == "note":
            run.note(given)
        elif said == "score":
            prompts = [Prompt.model_validate(each) for each in given["prompts"]]
            samples = [Sample.model_validate(each) for each in given["samples"]]
            scores = job.need_reward().score(prompts, samples)
            lines.write(json.dumps(vars(scores)) + "\n")
            lines.flush()
        elif said == "error":
            raise _error(**given)
        else:
            return {name: Metric.model_validate(metric) for name, metric in given.items()}
    raise _silent(folder, optimizer)


def _error(kind: str, what: str, where: str, remedy: str) -> RlhfError:
    """A worker's error, as an error of this process."""
    found: type[RlhfError] = getattr(errors, kind, TrainingError)
    return found(what, where=where, remedy=remedy)


def _silent(folder: Path, optimizer: Optimizer) -> TrainingError:
    text = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").strip()
    # The launcher's own last words, that a process failed, say less than those of the process.
    own = [line for line in text.splitlines() if line.startswith("[rank")]
    last = ("\n".join(own) or text)[-SHOWN_OUTPUT:]
    return TrainingError(
        f"the processes that train ended without a result; they said last:\n{last}",
        where=type(optimizer).__name__,
        remedy="The last good checkpoint stays, and the same command goes on from it.",
    )


def _threads(processes: int) -> str:
    """Threads for each process, so that together they use the machine once."""
    return str(max(len(os.sched_getaffinity(0)) // processes, 1))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
