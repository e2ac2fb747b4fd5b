"""What the optimizers of language models have in common as plugins. Light: torch is loaded when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, LanguageModelPolicy, OptimizeJob, Optimizer, Policy
from rlhf_core.records import Modality

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class TextOptimizer(Optimizer):
    """Every step: answer a batch of prompts, grade the answers with the reward and the reference, learn from them.

    A subclass says how to learn. Dropout is off everywhere.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    trains: ClassVar[type[Policy]] = LanguageModelPolicy

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The configuration files of accelerate and DeepSpeed and the folder of a fitted rater, where there are any."""
        folder = config.constraint.folder if config.constraint is not None else None
        deepspeed = _deepspeed_file(config.accelerate) if config.accelerate is not None else None
        return tuple(path for path in (config.accelerate, deepspeed, folder) if path is not None)

    def learner(self, task: Task) -> Learner:
        """What learns from the graded batches."""
        raise NotImplementedError

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place, going on from the newest checkpoint.

        The metrics are those of the last batch: proxy `reward`, `kl` to the reference (nats an answer), `eos_rate`,
        `answer_tokens`; with a constraint `cost` and its `multiplier`. Raises TrainingError where rewards, costs,
        losses or probabilities are not finite (before they reach the weights), where there are no prompts, and where
        `ptx` has nothing to imitate.
        """
        if self.config.processes > 1 or self.config.accelerate is not None:
            from rlhf_plugins.optimizers.text.launch import optimize_in_processes

            return optimize_in_processes(self, job)
        return self.train(job)

    def train(self, job: OptimizeJob) -> dict[str, Metric]:
        """`optimize` in this process: all of the work, or its share where it is one of several workers."""
        from rlhf_plugins.optimizers.text.course import Course
        from rlhf_plugins.optimizers.text.task import Task

        task = Task(job, self.config, self.run, name=type(self).__name__)
        return Course(task).train(self.learner(task))


def _deepspeed_file(accelerate: Path) -> Path | None:
    """The file of DeepSpeed's own settings that accelerate's names, where it names one that is there."""
    import yaml

    try:
        named = yaml.safe_load(accelerate.read_text(encoding="utf-8"))["deepspeed_config"]["deepspeed_config_file"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return path if (path := Path(named)).is_file() else None
