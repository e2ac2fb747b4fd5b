"""Policy gradients: raise the probability of tokens with positive advantage, by clipped updates in minibatches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.rl.groups import Normalise, token_weights
from rlhf_core.rl.importance import mismatch, truncated_weights
from rlhf_core.rl.kl import k3
from rlhf_core.rl.losses import Divergence, divergence_loss, policy_loss
from rlhf_core.rl.masks import masked_sum
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.credit import Credit
from rlhf_plugins.optimizers.text.experience import Experience, turn
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale, opinion
from rlhf_plugins.optimizers.text.imitation import Shown, imitation_gradient, texts_of
from rlhf_plugins.optimizers.text.learner import POLICY_STREAM, Learner, minibatches, tokens_an_update
from rlhf_plugins.trainee import Trainee

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_plugins.optimizers.text.settings import GradientSettings
    from rlhf_plugins.optimizers.text.task import Task

DEMONSTRATION_STREAM = 4


@dataclass(frozen=True)
class Pull:
    """The divergence from the reference as a loss of its own, where it is no part of the reward."""

    reference: Tensor
    """[B, T] log-probabilities under the reference."""
    weights: Tensor
    """[B, T] what each token counts, the coefficient included."""
    estimator: Divergence


@dataclass(frozen=True)
class Lesson:
    """What a batch of experience teaches the policy; constants [B, T], 0 at masked positions."""

    experience: Experience
    advantages: Tensor
    pull: Pull | None = None


class PolicyGradient(Learner):
    """Learns from advantages that `credit` finds; `normalise` says what a token counts, `pull` how GRPO adds the KL."""

    def __init__(
        self, task: Task, credit: Credit, *, normalise: Normalise = "token", pull: Divergence | None = None
    ) -> None:
        super().__init__(task)
        self.credit, self.normalise, self.pull = credit, normalise, pull
        self.reads_hidden = credit.reads_hidden
        self.demonstrations = texts_of(task.job.demonstrations) if self.config.ptx else []
        if self.config.ptx and not self.demonstrations:
            raise TrainingError(
                "ptx mixes in imitation, but there are no demonstrations on training prompts",
                where=task.name,
                remedy="Set ptx to 0, or add demonstrations to the pipeline's data.",
            )

    def begin(self, scale: RewardScale) -> None:
        """Tell the credit."""
        self.credit.begin(scale)

    def set_rate(self, share: float) -> None:
        """Use `share` of the full learning rates."""
        super().set_rate(share)
        self.credit.set_rate(share)

    def learn(self, batch: Graded, step: int) -> dict[str, float]:
        """Find the advantages, then take the updates of one step."""
        config, experience = self.config, batch.experience
        advantages, logged = self.credit.advantages(batch, step)
        weights = token_weights(experience.mask, self.normalise, self.lm.max_new_tokens)
        pull = None
        if self.pull is not None and batch.coefficient > 0:
            pull = Pull(batch.reference, batch.coefficient * weights, self.pull)
        advantages = advantages * weights
        if config.correction is not None:
            trainer, _ = opinion(
                self.lm, experience, temperature=self.temperature, size=config.micro_batch, hidden=False
            )
            logged["logprob_mismatch"] = mismatch(trainer, experience.logprobs, experience.mask).item()
            advantages = advantages * truncated_weights(
                trainer, experience.logprobs, experience.mask, cap=config.correction
            )
            experience = replace(experience, logprobs=trainer)
        improved = improve_policy(
            self.lm,
            self.actor,
            Lesson(experience, advantages, pull),
            config,
            seed=self.run.seed,
            step=step,
            temperature=self.temperature,
            imitate=partial(self._demonstrations, step) if config.ptx else None,
        )
        return improved | logged

    def _demonstrations(self, step: int, update: int, size: int) -> list[Shown]:
        number = (step * self.config.epochs * self.config.minibatches) + update
        return turn(self.demonstrations, seed=self.run.seed, stream=DEMONSTRATION_STREAM, number=number, size=size)

    def save(self, folder: Path) -> None:
        """Write policy and credit."""
        super().save(folder)
        self.credit.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        super().load(folder)
        self.credit.load(folder)

    def keep(self, folder: Path) -> None:
        """Leave what the credit wants to find in the next round."""
        self.credit.keep(folder)


def improve_policy(
    lm: LanguageModel,
    trainee: Trainee,
    lesson: Lesson,
    config: GradientSettings,
    *,
    seed: int,
    step: int,
    temperature: float,
    imitate: Callable[[int, int], Sequence[Shown]] | None,
) -> dict[str, float]:
    """Take the clipped policy-gradient updates of one step. Raises NotFiniteError before a bad one.

    `imitate(n, size)` gives `size` demonstrations for update number n of this step. Returns what to log; averages are
    over tokens.
    """
    experience = lesson.experience
    tokens = tokens_an_update(experience, config.minibatches)
    sums: dict[str, float] = dict.fromkeys(("policy_loss", "entropy", "clip_fraction", "ratio"), 0.0)
    seen, update = 0.0, 0
    norms: list[float] = []
    logged: dict[str, float] = {"ratio_max": 0.0, "early_stop": 0.0}
    if imitate is not None:
        logged["ptx_loss"] = 0.0
    for chunk in minibatches(len(experience.ids), config.epochs, config.minibatches, (seed, POLICY_STREAM, step)):
        loss = moved = distance = chunk_tokens = 0.0
        for index, part in experience.pieces(config.micro_batch, chunk.to(experience.ids.device)):
            width = part.mask.shape[1]
            with lm.autocast():
                logprobs, entropy = sequence_logprobs(lm.model, part.ids, part.attention, part.start, temperature)
            result = policy_loss(
                logprobs,
                part.logprobs,
                lesson.advantages[index, :width],
                part.mask,
                clip=config.clip,
                clip_high=config.clip_high,
                dual_clip=config.dual_clip,
                tokens=tokens,
            )
            value = result.loss
            if lesson.pull is not None:
                value = value + divergence_loss(
                    logprobs,
                    lesson.pull.reference[index, :width],
                    part.mask,
                    estimator=lesson.pull.estimator,
                    weights=lesson.pull.weights[index, :width],
                    tokens=tokens,
                )
            trainee.backward(value)
            logprobs = logprobs.detach()
            moved += masked_sum(k3(part.logprobs, logprobs), part.mask).item()
            distance += masked_sum((part.logprobs - logprobs).abs(), part.mask).item()
            chunk_tokens += int(part.mask.sum())
            loss += value.item()
            sums["entropy"] += masked_sum(entropy.detach(), part.mask).item()
            sums["clip_fraction"] += result.clipped.sum().item()
            sums["ratio"] += masked_sum(result.ratio, part.mask).item()
            logged["ratio_max"] = max(logged["ratio_max"], result.ratio.max().item())
        loss, moved, distance, chunk_tokens = world.totals(loss, moved, distance, chunk_tokens)
        seen += chunk_tokens
        sums["policy_loss"] += loss * tokens
        if update == 0:
            # No update yet: every difference is the sampling engine's numerics against the trainer's.
            logged["logprob_mismatch"] = distance / chunk_tokens
        elif config.early_stop_kl is not None and moved / chunk_tokens > config.early_stop_kl:
            trainee.forget()
            logged["early_stop"] = 1.0
            break
        if imitate is not None:
            imitation = imitation_gradient(lm, trainee, imitate(update, len(chunk)), config)
            logged["ptx_loss"] += imitation
            loss += config.ptx * imitation
        norms.append(trainee.step(loss))
        update += 1
        logged["policy_moved"] = moved / chunk_tokens
    if imitate is not None:
        logged["ptx_loss"] /= update
    logged["ratio_max"] = world.largest(logged["ratio_max"])
    for name in ("entropy", "clip_fraction", "ratio"):
        (sums[name],) = world.totals(sums[name])
    averages = {name: total / seen for name, total in sums.items()}
    return {**averages, **logged, "grad_norm": float(np.mean(norms)), "updates": float(update)}
