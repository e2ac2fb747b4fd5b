"""The course of an optimisation: step after step, logged, checkpointed, resumed to the bit."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.rl.kl import k1, k2, k3, next_coefficient
from rlhf_core.rl.lagrange import next_multiplier, priced
from rlhf_core.rl.masks import row_sums
from rlhf_core.rl.rewards import Moments
from rlhf_plugins.optimizers.text import experience as experiences
from rlhf_plugins.optimizers.text.constraint import Bound
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale, opinion, scores_of, shaped
from rlhf_plugins.optimizers.text.learner import Learner
from rlhf_plugins.optimizers.text.moving_reference import MovingReference
from rlhf_plugins.optimizers.text.task import Task
from rlhf_plugins.optimizers.text.watch import Watcher
from rlhf_plugins.trainee import NotFiniteError

PROMPT_STREAM, ANSWER_STREAM = 0, 1
"""Uses of the run's seed, besides those of the learner."""
REFERENCE_ANSWERS = 128
"""Answers of the reference that the reward is normalised on: the mean is known to a tenth of a standard deviation."""
MISMATCH = 0.05
"""Nats a token between sampling engine and trainer above which a person should know."""


@dataclass
class State:
    """What a run knows besides what its learner does."""

    coefficient: float
    """KL coefficient of the next step."""
    scale: RewardScale = field(default_factory=RewardScale)
    multiplier: float = 0.0
    """Price of a unit of cost in the next step; 0 where nothing is bounded."""


@dataclass(frozen=True)
class Step:
    """What a step measured, whether it learnt or not."""

    metrics: dict[str, Metric]
    """Of the batch, for the stage's result."""
    over_budget: bool
    """True where the policy is too far from the reference to go on; nothing was learnt then."""


class Course:
    """One optimisation of one policy."""

    def __init__(self, task: Task) -> None:
        self.task, self.job, self.config, self.run, self.name = task, task.job, task.config, task.run, task.name
        self.policy, self.reference, self.temperature = task.policy, task.reference, task.temperature
        bound = task.config.constraint
        self.state = State(task.config.kl.coefficient, multiplier=bound.multiplier if bound is not None else 0.0)
        self.bound = Bound(task, bound) if bound is not None else None
        self.moving: MovingReference | None = None
        self.watcher = Watcher(task, task.config.watch) if task.config.watch is not None else None
        self.warned = False

    def train(self, learner: Learner) -> dict[str, Metric]:
        """All steps that are left; the metrics of the last one, or of the best look where one watches."""
        config, watcher = self.config, self.watcher
        if config.kl.sync is not None:
            self.moving = MovingReference(self.task, config.kl.sync)
        saved = self.run.checkpoints.latest()
        if saved is None:
            done = 0
            self._measure_reference()
            learner.begin(self.state.scale)
        else:
            done, folder = saved
            self._load(learner, folder)
        for number in range(done, config.steps):
            seen = watcher.look(number) if watcher is not None and watcher.due(number) else {}
            if watcher is not None and watcher.turned:
                self.run.log(seen, number)
                break
            try:
                step = self._step(learner, number, seen)
            except NotFiniteError:
                raise TrainingError(
                    f"step {number + 1} of {config.steps}: a loss over {config.batch * config.answers} samples is not "
                    "finite",
                    where=self.name,
                    remedy="The update was refused before any weight changed, and the last good checkpoint stays. "
                    "A lower lr, a larger kl.coefficient or a reward_clip usually helps.",
                ) from None
            if step.over_budget:
                self.run.note(
                    f"ended before step {number + 1} of {config.steps}: {step.metrics['kl'].value:.3g} nats an answer "
                    f"from the reference are more than kl.budget {config.kl.budget:g}"
                )
                break
            done = number + 1
            if self.moving is not None:
                self.moving.follow(done)
            # Without a checkpoint at the very end a resumed run always ends with a step, and so with its metrics.
            if done % config.checkpoint_every == 0 and done < config.steps:
                self.run.checkpoints.save(done, lambda folder: self._save(learner, folder))
        metrics = step.metrics if watcher is None else self._best(watcher, done)
        if self.job.keep is not None:
            learner.keep(self.job.keep)
        return metrics

    def _best(self, watcher: Watcher, done: int) -> dict[str, Metric]:
        """Look a last time, after `done` steps; go back to the best weights, and say where the turn was."""
        if not watcher.turned and watcher.looks[-1].step != done:
            self.run.log(watcher.look(done), done)
        best, last = watcher.best_look, watcher.looks[-1]
        if best is not last:
            watcher.restore()
            # The curve is one over the distance from where training began.
            curve = watcher.curve() if self.moving is None else None
            turn = f"; the fitted curve turns at {curve.turn:.3g} nats" if curve is not None and curve.turn else ""
            self.run.note(
                f"the watched score was best after {best.step} steps ({best.watched:.3g} at {best.kl:.3g} nats) and "
                f"{last.watched:.3g} after {last.step}, at proxy rewards of {best.proxy:.3g} and {last.proxy:.3g}"
                f"{turn}: the best weights are kept"
            )
        return watcher.metrics

    def _measure_reference(self) -> None:
        """Mean and standard deviation of the reward over answers of the reference."""
        if not self.config.normalise_reward:
            return
        size = min(REFERENCE_ANSWERS, len(self.job.prompts))
        seed, scale = self.run.seed, self.state.scale
        prompts = experiences.turn(self.job.prompts, seed=seed, stream=PROMPT_STREAM, number=0, size=size)
        samples = [answers[0] for answers in self.reference.sample(prompts, 1, seed)]
        scores = scores_of(self.task.reward, prompts, samples, when="before the first step")
        scale.moments = scale.moments.after(torch.tensor(scores))
        scale.mean, std = float(np.mean(scores)), float(np.std(scores))
        if std < 1e-6:
            self.run.note("the reward of all reference answers is equal: it is shifted, but not scaled")
        else:
            scale.std = std

    def _step(self, learner: Learner, number: int, seen: dict[str, float]) -> Step:
        began = time.perf_counter()
        config, state = self.config, self.state
        left = 1 - number / config.steps
        learner.set_rate(left)
        raw, batch = self._experience(number, hidden=learner.reads_hidden)
        experience, reference = batch.experience, batch.reference

        divergence = row_sums(batch.log_ratio, experience.mask)
        lengths = experience.mask.sum(dim=1).float()
        kl = divergence.mean().item()
        over_budget = config.kl.budget is not None and kl > config.kl.budget
        learnt = {} if over_budget else learner.learn(batch, number)

        priced_costs = self._follow_costs(batch.costs, over_budget=over_budget)
        seconds = time.perf_counter() - began
        self.run.log(
            {
                "reward": float(np.mean(raw)),
                "reward_std": float(np.std(raw)),
                "score": batch.scores.mean().item(),
                "kl": kl,
                "kl_k2": row_sums(k2(experience.logprobs, reference), experience.mask).mean().item(),
                "kl_k3": row_sums(k3(experience.logprobs, reference), experience.mask).mean().item(),
                "kl_coefficient": state.coefficient,
                "answer_tokens": lengths.mean().item(),
                "eos_rate": experience.finished.float().mean().item(),
                "learning_rate": config.lr * left,
                "tokens_per_second": lengths.sum().item() / seconds,
                "seconds": seconds,
                **learnt,
                **{name: metric.value for name, metric in priced_costs.items()},
                **seen,
            },
            number,
        )
        self.run.progress(number + 1, config.steps, f"reward {np.mean(raw):.2f}  KL {kl:.1f}")
        self._warn(learnt.get("logprob_mismatch", 0.0))
        state.coefficient = next_coefficient(
            state.coefficient, kl, target=config.kl.target, samples=len(raw), horizon=config.kl.horizon
        )
        if config.normalise_reward == "running":
            state.scale.follow(torch.tensor(raw))
        seed = self.run.seed
        metrics = {
            "reward": bootstrap(raw, seed=seed),
            "kl": bootstrap(divergence.tolist(), seed=seed),
            "answer_tokens": bootstrap(lengths.tolist(), seed=seed),
            "eos_rate": bootstrap(experience.finished.float().tolist(), seed=seed),
            **priced_costs,
        }
        return Step(metrics, over_budget)

    def _follow_costs(self, costs: Sequence[float], *, over_budget: bool) -> dict[str, Metric]:
        """The batch's mean cost and the price it was taken off at; the next step has the price that follows from it."""
        bound, state = self.config.constraint, self.state
        if bound is None:
            return {}
        found = {"cost": bootstrap(costs, seed=self.run.seed), "multiplier": Metric(value=state.multiplier)}
        if not over_budget:
            state.multiplier = next_multiplier(
                state.multiplier, found["cost"].value, limit=bound.limit, rate=bound.rate, most=bound.most
            )
        return found

    def _experience(self, number: int, *, hidden: bool) -> tuple[list[float], Graded]:
        """The rewards as the reward model gave them, and the graded batch of step `number`."""
        config, state, seed = self.config, self.state, self.run.seed
        asked = experiences.turn(self.job.prompts, seed=seed, stream=PROMPT_STREAM, number=number, size=config.batch)
        prompts = [prompt for prompt in asked for _ in range(config.answers)]
        seeds = np.random.default_rng([seed, ANSWER_STREAM, number]).integers(0, 2**63, size=len(prompts)).tolist()
        batch = experiences.answers(
            self.policy.lm, prompts, seeds=seeds, temperature=self.temperature, stop=self.policy.stop
        )
        when = f"step {number + 1} of {config.steps}"
        if not batch.logprobs.isfinite().all():
            raise TrainingError(
                f"{when}: the policy's probabilities are not finite",
                where=self.name,
                remedy="The last good checkpoint stays. Try a lower lr.",
            )
        samples = experiences.as_samples(self.policy, prompts, batch)
        raw = scores_of(self.task.reward, prompts, samples, when=when)
        reference, states = opinion(
            self.reference.lm, batch, temperature=self.temperature, size=config.micro_batch, hidden=hidden
        )
        scores = shaped(raw, state.scale, batch, self.policy.lm.max_new_tokens, config)
        costs: list[float] = []
        if self.bound is not None and config.constraint is not None:
            costs = self.bound.costs(prompts, samples, when=when)
            scores = priced(scores, torch.tensor(costs).to(scores), state.multiplier, limit=config.constraint.limit)
        graded = Graded(
            experience=batch,
            scores=scores,
            reference=reference,
            log_ratio=k1(batch.logprobs, reference),
            hidden=states,
            coefficient=state.coefficient,
            group=config.answers,
            prompts=prompts,
            samples=samples,
            costs=costs,
        )
        return raw, graded

    def _warn(self, mismatch: float) -> None:
        if mismatch > MISMATCH and not self.warned:
            self.warned = True
            self.run.note(
                f"sampling and training disagree by {mismatch:.2g} nats a token: a policy computed in float32 (its "
                "`dtype`) agrees, and policy-gradient optimizers weigh it away by `correction: 2`"
            )

    def _save(self, learner: Learner, folder: Path) -> None:
        learner.save(folder)
        if self.watcher is not None:
            self.watcher.save(folder)
        if self.moving is not None:
            self.moving.save(folder)
        (folder / "state.json").write_text(json.dumps(asdict(self.state)), encoding="utf-8")

    def _load(self, learner: Learner, folder: Path) -> None:
        learner.load(folder)
        if self.watcher is not None:
            self.watcher.load(folder)
        if self.moving is not None:
            self.moving.load(folder)
        saved = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        scale = saved["scale"]
        self.state = State(
            saved["coefficient"],
            RewardScale(scale["mean"], scale["std"], Moments(**scale["moments"])),
            saved["multiplier"],
        )
