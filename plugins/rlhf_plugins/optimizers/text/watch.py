"""Over-optimisation: look at the policy with other eyes than the reward's, keep the best, stop after the turn."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.sharding import fill, kept
from rlhf_core.metrics import Metric
from rlhf_core.plugins import RewardModel
from rlhf_core.records import Prompt, Sample
from rlhf_core.rl.overoptimisation import GaoCurve, fit_gao
from rlhf_plugins.optimizers.text.experience import turn
from rlhf_plugins.optimizers.text.grading import scores_of
from rlhf_plugins.optimizers.text.measure import measure
from rlhf_plugins.trainee import trainable, write_weights

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.settings import Watch
    from rlhf_plugins.optimizers.text.task import Task

WATCH_STREAM = 6


@dataclass(frozen=True)
class Look:
    """The policy before step number `step`."""

    step: int
    kl: float
    """Nats an answer."""
    proxy: float
    watched: float


class Watcher:
    """Looks every few steps at the same prompts with the same random numbers."""

    def __init__(self, task: Task, config: Watch) -> None:
        self.task, self.config = task, config
        self.looks: list[Look] = []
        self.best: dict[str, Tensor] = {}
        """The trainable weights of the best look, see `kept`."""
        self.metrics: dict[str, Metric] = {}
        """Of the best look."""
        seed = task.run.seed
        self.prompts = turn(task.job.prompts, seed=seed, stream=WATCH_STREAM, number=0, size=config.answers)
        self.rater: RewardModel | None = None
        if config.by is not None:
            from rlhf_core.plugins.registry import Registry

            rater: RewardModel = Registry().create("reward_models", config.by, run=task.run)
            if rater.learns_from:
                raise TrainingError(
                    f"watch.by: `{config.by.use}` learns from feedback, and nobody has fitted it",
                    where=task.name,
                    remedy="Name a rater that needs no feedback (`principles`, a finished model), or leave `by` out "
                    "and use an ensemble as the reward.",
                )
            self.rater = rater

    @property
    def best_look(self) -> Look:
        """The first of the highest."""
        return max(self.looks, key=lambda look: look.watched)

    def due(self, step: int) -> bool:
        """Whether to look before step number `step`; a resumed run does not look twice."""
        return step % self.config.every == 0 and all(look.step != step for look in self.looks)

    def look(self, step: int) -> dict[str, float]:
        """Measure the policy as it is before step number `step`, and keep it where it is the best; what to log."""
        task = self.task
        when = f"the look before step {step + 1}"
        found = measure(
            task.policy,
            task.reference,
            task.reward,
            self.prompts,
            temperature=task.temperature,
            size=task.config.micro_batch,
            seed=task.run.seed,
            stream=WATCH_STREAM,
            when=when,
        )
        watched = sum(self._scores(found.samples, when)) / len(self.prompts)
        self.looks.append(Look(step, found.metrics["kl"].value, found.metrics["reward"].value, watched))
        if self.best_look.step == step:
            weights = trainable(task.policy.lm.model)
            self.best = {name: kept(weight) for name, weight in weights.items()}
            self.metrics = {**found.metrics, "watched": Metric(value=watched, n=len(self.prompts))}
        return {"watched": watched, "watch_proxy": self.looks[-1].proxy, "watch_kl": self.looks[-1].kl}

    @property
    def turned(self) -> bool:
        """Whether the best lies more than `patience` looks back."""
        return len(self.looks) - 1 - self.looks.index(self.best_look) > self.config.patience

    def restore(self) -> None:
        """Give the policy the weights of the best look."""
        for name, weight in trainable(self.task.policy.lm.model).items():
            fill(weight, self.best[name])

    def curve(self) -> GaoCurve | None:
        """How the watched score rose and turned with the divergence."""
        start = self.looks[0].watched
        return fit_gao([look.kl for look in self.looks], [look.watched - start for look in self.looks])

    def save(self, folder: Path) -> None:
        """Write looks, best weights and their metrics."""
        write_weights(self.best, folder / "best.safetensors")
        kept = {"looks": [asdict(look) for look in self.looks]}
        kept["metrics"] = {name: metric.model_dump() for name, metric in self.metrics.items()}  # type: ignore[assignment]
        (folder / "watch.json").write_text(json.dumps(kept), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        kept = json.loads((folder / "watch.json").read_text(encoding="utf-8"))
        self.looks = [Look(**look) for look in kept["looks"]]
        self.metrics = {name: Metric(**metric) for name, metric in kept["metrics"].items()}
        self.best = load_file(folder / "best.safetensors")

    def _scores(self, samples: list[Sample], when: str) -> list[float]:
        """By the held-out rater; without one what the ensemble agrees on: mean less `caution` standard deviations."""
        prompts: list[Prompt] = self.prompts
        if self.rater is not None:
            return scores_of(self.rater, prompts, samples, when=when)
        scores = self.task.reward.score(prompts, samples)
        if scores.spread is None:
            raise TrainingError(
                f"watch: {type(self.task.reward).__name__} does not say how unsure it is",
                where=self.task.name,
                remedy="Use an ensemble as the reward, or name a held-out rater in `watch.by`.",
            )
        pairs = zip(scores.mean, scores.spread, strict=True)
        return [mean - self.config.caution * spread for mean, spread in pairs]
