"""The course of a PPO run: step after step, logged, checkpointed, resumed to the bit."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import LanguageModelPolicy, OptimizeJob
from rlhf_core.records import Answer, Demonstration
from rlhf_core.rl.advantages import explained_variance, generalised_advantages
from rlhf_core.rl.kl import k1, k2, k3, next_coefficient
from rlhf_core.rl.masks import row_sums, whiten
from rlhf_core.rl.rewards import penalise_unfinished, standardise, token_rewards
from rlhf_core.run import Run
from rlhf_plugins.optimizers import _experience as experiences
from rlhf_plugins.optimizers._trainee import NotFiniteError, Trainee
from rlhf_plugins.optimizers._updates import Lesson, fit_values, improve_policy
from rlhf_plugins.optimizers._values import HeadOnReference, Network, ValueModel, all_values, keep, take_over

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.ppo import Ppo

PROMPT_STREAM, ANSWER_STREAM, DEMONSTRATION_STREAM = 0, 1, 4
"""Uses of the run's seed, besides those of the updates."""
REFERENCE_ANSWERS = 128
"""Answers of the reference that the reward is normalised on: the mean is known to a tenth of a standard deviation."""
MISMATCH = 0.05
"""Nats a token between sampling engine and trainer above which a person should know."""


@dataclass
class State:
    """What a run knows besides weights and moments."""

    coefficient: float
    """KL coefficient of the next step."""
    reward_mean: float = 0.0
    reward_std: float = 1.0


class Training:
    """One optimisation of one policy."""

    def __init__(self, config: Ppo.Config, run: Run, job: OptimizeJob) -> None:
        if not job.prompts:
            raise TrainingError("there are no training prompts", where="ppo", remedy="Check the pipeline's data.")
        assert isinstance(job.policy, LanguageModelPolicy)
        assert isinstance(job.reference, LanguageModelPolicy)
        self.config, self.run, self.job = config, run, job
        self.policy, self.reference = job.policy, job.reference
        self.temperature: float = config.temperature or getattr(job.policy, "temperature", 1.0)
        self.demonstrations = _texts(job.demonstrations) if config.ptx else []
        if config.ptx and not self.demonstrations:
            raise TrainingError(
                "ptx mixes in imitation, but there are no demonstrations on training prompts",
                where="ppo",
                remedy="Set ptx to 0, or add demonstrations to the pipeline's data.",
            )
        for lm in (self.policy.lm, self.reference.lm):
            lm.model.eval()
        self.values: ValueModel = (
            HeadOnReference(self.reference.lm, run.seed) if config.value_model == "head" else Network(self.policy.lm)
        )
        if job.previous is not None and not take_over(self.values, job.previous):
            run.note("the last round left no value model of this shape: starting from a fresh one")
        self.actor = Trainee(self.policy.lm.model, lr=config.lr, max_grad_norm=config.max_grad_norm)
        self.critic = Trainee(self.values, lr=config.value_lr, max_grad_norm=config.max_grad_norm)
        self.state = State(config.kl.coefficient)
        self.warned = False

    def train(self) -> dict[str, Metric]:
        """All steps that are left; the metrics of the last one."""
        config = self.config
        saved = self.run.checkpoints.latest()
        if saved is None:
            first = 0
            self._measure_reference()
        else:
            first, folder = saved
            self._load(folder)
        for step in range(first, config.steps):
            try:
                metrics = self._step(step)
            except NotFiniteError:
                raise TrainingError(
                    f"step {step + 1} of {config.steps}: a loss over {config.batch} samples is not finite",
                    where="ppo",
                    remedy="The update was refused before any weight changed, and the last good checkpoint stays. "
                    "A lower lr, a larger kl.coefficient or a reward_clip usually helps.",
                ) from None
            # Without a checkpoint at the very end a resumed run always ends with a step, and so with its metrics.
            if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                self.run.checkpoints.save(step + 1, self._save)
        if self.job.keep is not None:
            keep(self.values, self.job.keep)
        return metrics

    def _measure_reference(self) -> None:
        """Mean and standard deviation of the reward over answers of the reference."""
        if not self.config.normalise_reward:
            return
        size = min(REFERENCE_ANSWERS, len(self.job.prompts))
        seed = self.run.seed
        prompts = experiences.turn(self.job.prompts, seed=seed, stream=PROMPT_STREAM, number=0, size=size)
        samples = [answers[0] for answers in self.reference.sample(prompts, 1, seed)]
        scores = experiences.scores_of(self.job.reward, prompts, samples, when="before the first step")
        self.state.reward_mean, std = float(np.mean(scores)), float(np.std(scores))
        if std < 1e-6:
            self.run.note("the reward of all reference answers is equal: it is shifted, but not scaled")
        else:
            self.state.reward_std = std

    def _step(self, step: int) -> dict[str, Metric]:
        began = time.perf_counter()
        config, state, seed = self.config, self.state, self.run.seed
        left = 1 - step / config.steps
        self.actor.set_rate(left)
        self.critic.set_rate(left)

        prompts = experiences.turn(self.job.prompts, seed=seed, stream=PROMPT_STREAM, number=step, size=config.batch)
        seeds = np.random.default_rng([seed, ANSWER_STREAM, step]).integers(0, 2**63, size=config.batch).tolist()
        batch = experiences.answers(self.policy.lm, prompts, seeds=seeds, temperature=self.temperature)
        if not batch.logprobs.isfinite().all():
            raise TrainingError(
                f"step {step + 1} of {config.steps}: the policy's probabilities are not finite",
                where="ppo",
                remedy="The last good checkpoint stays. Try a lower lr.",
            )
        samples = experiences.as_samples(self.policy, prompts, batch)
        raw = experiences.scores_of(self.job.reward, prompts, samples, when=f"step {step + 1} of {config.steps}")
        reference, hidden = experiences.opinion(
            self.reference.lm,
            batch,
            temperature=self.temperature,
            size=config.micro_batch,
            hidden=self.values.reads_hidden,
        )

        scores = torch.tensor(raw, device=batch.ids.device)
        scores = standardise(scores, state.reward_mean, state.reward_std, clip=config.reward_clip)
        scores = penalise_unfinished(scores, batch.finished, config.missing_eos_penalty)
        log_ratio = k1(batch.logprobs, reference)
        rewards = token_rewards(scores, log_ratio, batch.mask, coefficient=state.coefficient)
        values = all_values(self.values, batch, hidden, config.micro_batch)
        advantages, returns = generalised_advantages(rewards, values, batch.mask, gamma=config.gamma, lam=config.lam)
        lesson = Lesson(batch, whiten(advantages, batch.mask) if config.whiten else advantages, values, returns, hidden)

        fitted = fit_values(self.values, self.critic, lesson, config, seed=seed, step=step)
        imitate = None if not config.ptx else lambda update, size: self._demonstrations(step, update, size)
        improved = improve_policy(
            self.policy.lm,
            self.actor,
            lesson,
            config,
            seed=seed,
            step=step,
            temperature=self.temperature,
            imitate=imitate,
        )

        divergence = row_sums(log_ratio, batch.mask)
        lengths = batch.mask.sum(dim=1).float()
        kl = divergence.mean().item()
        seconds = time.perf_counter() - began
        self.run.log(
            {
                "reward": float(np.mean(raw)),
                "reward_std": float(np.std(raw)),
                "score": scores.mean().item(),
                "kl": kl,
                "kl_k2": row_sums(k2(batch.logprobs, reference), batch.mask).mean().item(),
                "kl_k3": row_sums(k3(batch.logprobs, reference), batch.mask).mean().item(),
                "kl_coefficient": state.coefficient,
                "explained_variance": explained_variance(values, returns, batch.mask).item(),
                "answer_tokens": lengths.mean().item(),
                "eos_rate": batch.finished.float().mean().item(),
                "learning_rate": config.lr * left,
                "tokens_per_second": lengths.sum().item() / seconds,
                "seconds": seconds,
                **fitted,
                **improved,
            },
            step,
        )
        self.run.progress(step + 1, config.steps, f"reward {np.mean(raw):.2f}  KL {kl:.1f}")
        if improved["logprob_mismatch"] > MISMATCH and not self.warned:
            self.warned = True
            self.run.note(
                f"sampling and training disagree by {improved['logprob_mismatch']:.2g} nats a token; "
                "computing in float32 (the policy's dtype) brings them together"
            )
        state.coefficient = next_coefficient(
            state.coefficient, kl, target=config.kl.target, samples=config.batch, horizon=config.kl.horizon
        )
        return {
            "reward": bootstrap(raw, seed=seed),
            "kl": bootstrap(divergence.tolist(), seed=seed),
            "answer_tokens": bootstrap(lengths.tolist(), seed=seed),
            "eos_rate": bootstrap(batch.finished.float().tolist(), seed=seed),
        }

    def _demonstrations(self, step: int, update: int, size: int) -> list[experiences.Shown]:
        number = (step * self.config.epochs * self.config.minibatches) + update
        return experiences.turn(
            self.demonstrations, seed=self.run.seed, stream=DEMONSTRATION_STREAM, number=number, size=size
        )

    def _save(self, folder: Path) -> None:
        self.actor.save(folder, "policy")
        self.critic.save(folder, "value_model")
        (folder / "state.json").write_text(json.dumps(asdict(self.state)), encoding="utf-8")

    def _load(self, folder: Path) -> None:
        self.actor.load(folder, "policy")
        self.critic.load(folder, "value_model")
        self.state = State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))


def _texts(answers: Sequence[Answer]) -> list[experiences.Shown]:
    """The demonstrations that are texts."""
    return [
        experiences.Shown(answer.question.prompt, answer.feedback.text, answer.feedback.weight)
        for answer in answers
        if isinstance(answer.feedback, Demonstration) and answer.feedback.text is not None
    ]
