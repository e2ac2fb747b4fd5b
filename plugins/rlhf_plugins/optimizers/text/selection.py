"""Learning from the best of several answers alone: rejection sampling, then imitation."""

from __future__ import annotations

import numpy as np
import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.rl.groups import best_and_worst
from rlhf_core.rl.importance import mismatch
from rlhf_core.rl.losses import imitation_loss
from rlhf_plugins.optimizers.text.experience import Experience
from rlhf_plugins.optimizers.text.grading import Graded
from rlhf_plugins.optimizers.text.learner import POLICY_STREAM, Learner, accumulate, minibatches


class BestLearner(Learner):
    """Imitates the best answer to each prompt, by score less the cost of its divergence."""

    def learn(self, batch: Graded, step: int) -> dict[str, float]:
        """One pass or several over the best answers."""
        config = self.config
        best, _ = best_and_worst(batch.penalised, batch.group)
        tokens = float(batch.experience.mask[best].sum()) / config.minibatches
        logged = {"best_score": batch.scores[best].mean().item()}

        def loss(part: Experience, index: torch.Tensor) -> torch.Tensor:
            with self.lm.autocast():
                logprobs, _ = sequence_logprobs(self.lm.model, part.ids, part.attention, part.start, self.temperature)
            # Before the first update every difference is the sampling engine's numerics against the trainer's.
            logged.setdefault("logprob_mismatch", mismatch(logprobs.detach(), part.logprobs, part.mask).item())
            return imitation_loss(logprobs, part.mask, torch.ones_like(logprobs[:, 0]), tokens=tokens)

        losses, norms = [], []
        for chunk in minibatches(len(best), config.epochs, config.minibatches, (self.run.seed, POLICY_STREAM, step)):
            total = accumulate(self.actor, batch.experience, best[chunk.to(best.device)], config.micro_batch, loss)
            norms.append(self.actor.step(total))
            losses.append(total)
        return {
            **logged,
            "policy_loss": float(np.mean(losses)),
            "grad_norm": float(np.mean(norms)),
            "updates": float(len(losses)),
        }
