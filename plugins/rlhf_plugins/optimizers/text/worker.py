"""One of several processes that train a policy together: `accelerate launch -m rlhf_plugins.optimizers.text.worker`.

Process 0 logs, writes checkpoints, and has the answers of all graded by the process that started it (`launch`).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.lm.adapted_head import BASE_FILE, AdaptedHead
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.plugins import LanguageModelPolicy, OptimizeJob, Policy, RewardModel, Scores
from rlhf_core.records import Answer, Prompt, Sample
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.launch import JOB, SOCKET, TRAINED, VALUE, imported
from rlhf_plugins.sharding import join
from rlhf_plugins.trainee import trainable, write_weights


class Line:
    """The way to the process that started the workers."""

    def __init__(self, path: Path) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        self.file = connection.makefile("rw", encoding="utf-8")

    def tell(self, what: str, value: Any) -> None:
        """Say something."""
        self.file.write(json.dumps([what, value]) + "\n")
        self.file.flush()

    def ask(self, what: str, value: Any) -> Any:
        """Say something and wait for the answer. Raises EOFError where nobody is there any more."""
        self.tell(what, value)
        answer = self.file.readline()
        if not answer:
            raise EOFError("the process that started this one is gone")
        return json.loads(answer)


class FollowerCheckpoints(Checkpoints):
    """Reads the checkpoints that process 0 writes."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Do whatever writing takes from this process, and keep nothing."""
        if self.folder is not None:
            with tempfile.TemporaryDirectory() as scratch:
                write(Path(scratch))


class FirstRun(Run):
    """The run of process 0, which passes on whatever there is to say."""

    line: Line

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one training step."""
        self.line.tell("log", {"metrics": dict(metrics), "step": step})

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Say how far the work is."""
        self.line.tell("progress", [done, total, note])

    def note(self, text: str) -> None:
        """Say something worth knowing once."""
        self.line.tell("note", text)


class RewardElsewhere(RewardModel):
    """The reward of the process that started the workers: asked once, by process 0, for all of them."""

    line: Line | None = None
    start: Path
    """Folder with what a value model starts from, where there is something."""

    def value_start(self, policy: Policy) -> ScalarHead | None:
        """The reward's own, as it was saved."""
        if not self.start.is_dir():
            return None
        assert isinstance(policy, LanguageModelPolicy)
        if not (self.start / BASE_FILE).is_file():
            return ScalarHead.load(self.start, device=policy.lm.device)
        adapted = AdaptedHead.load(self.start, device=policy.lm.device)
        adapted.share_base(policy.lm)
        return adapted

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Its scores."""
        return world.from_first(lambda: self._ask(prompts, samples))

    def _ask(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        assert self.line is not None
        records = {
            "prompts": [prompt.model_dump(mode="json") for prompt in prompts],
            "samples": [sample.model_dump(mode="json") for sample in samples],
        }
        return Scores(**self.line.ask("score", records))


def main(folder: Path) -> None:
    """Train, and leave the policy's weights in `folder`."""
    # Started by torchrun, of which accelerate's launcher is the front: known before the processes have met.
    line = Line(folder / SOCKET) if int(os.environ.get("RANK", "0")) == 0 else None
    try:
        accelerator = join()
        _refuse(accelerator)
        metrics = _train(json.loads((folder / JOB).read_text(encoding="utf-8")), folder, line)
    except RlhfError as error:
        if line is not None:
            said = {"what": error.what, "where": error.where, "remedy": error.remedy}
            line.tell("error", {"kind": type(error).__name__, **said})
        raise
    if line is not None:
        line.tell("done", metrics)
    accelerator.end_training()


def _refuse(accelerator: Accelerator) -> None:
    """Raise TrainingError where accelerate was told to do what is not done here."""
    if accelerator.distributed_type not in (
        DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU,
        DistributedType.MULTI_NPU, DistributedType.FSDP, DistributedType.DEEPSPEED,
    ):  # fmt: skip
        raise TrainingError(
            f"accelerate is set to {accelerator.distributed_type.value}, which is not done here",
            where="optimize.accelerate",
            remedy="Use `distributed_type: MULTI_GPU`, or FSDP or DEEPSPEED for models that a process cannot hold.",
        )


def _train(spec: dict[str, Any], folder: Path, line: Line | None) -> dict[str, Any]:
    checkpoints = spec["checkpoints"] and Path(spec["checkpoints"])
    run: Run
    if line is not None:
        run = first = FirstRun(spec["run"]["seed"], Checkpoints(checkpoints))
        first.line = line
    else:
        run = Run(spec["run"]["seed"], FollowerCheckpoints(checkpoints))
    run.store_url, run.pipeline, run.round = (spec["run"][name] for name in ("store_url", "pipeline", "round"))
    optimizer = _plugin(spec["optimizer"], run)
    policy, reference = (_policy(spec[name], folder / name, run) for name in ("policy", "reference"))
    reward = RewardElsewhere()
    reward.line, reward.start = line, folder / VALUE
    with tempfile.TemporaryDirectory() as scratch:
        keep = spec["keep"] and Path(spec["keep"] if line is not None else scratch)
        job = OptimizeJob(
            policy=policy,
            reference=reference,
            reward=reward,
            prompts=[Prompt.model_validate(each) for each in spec["prompts"]],
            demonstrations=[Answer.model_validate(each) for each in spec["demonstrations"]],
            previous=spec["previous"] and Path(spec["previous"]),
            keep=keep,
        )
        metrics = optimizer.train(job)
    write_weights(trainable(policy.lm.model), folder / TRAINED)
    return {name: metric.model_dump() for name, metric in metrics.items()}


def _plugin(described: dict[str, Any], run: Run) -> Any:
    kind = imported(described["class"])
    return kind(kind.Config.model_validate(described["config"]), run=run)


def _policy(described: dict[str, Any], folder: Path, run: Run) -> LanguageModelPolicy:
    policy: LanguageModelPolicy = _plugin(described, run)
    policy.load(folder)
    policy.version, policy.round = described["version"], described["round"]
    return policy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
