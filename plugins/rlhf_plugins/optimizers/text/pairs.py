"""Learning which of two answers is preferred: direct preference optimisation on answers of the policy itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.rl.groups import best_and_worst
from rlhf_core.rl.importance import mismatch
from rlhf_core.rl.preferences import bradley_terry, dpo_loss, ipo_loss, margins
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.asking import Asking, Preferred
from rlhf_plugins.optimizers.text.grading import Graded
from rlhf_plugins.optimizers.text.learner import POLICY_STREAM, Learner, minibatches

if TYPE_CHECKING:
    from torch import Tensor

    from rlhf_plugins.optimizers.text.task import Task

LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


class PairLearner(Learner):
    """Takes the best and the worst answer to each prompt as a pair; pairs of equal scores teach nothing.

    Best and worst by the reward, or by an annotator who is asked about the answers.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        asked = self.config.annotator
        self.asking = Asking(asked, self.config.overlap, task) if asked is not None else None

    def learn(self, batch: Graded, step: int) -> dict[str, float]:
        """One pass or several over the pairs; the coefficient of the divergence is the loss's beta."""
        config = self.config
        best, worst, wins = self._by_reward(batch) if self.asking is None else self.asking.preferred(batch)
        if config.labels == "hard":
            wins = torch.ones_like(wins)
        told = len(best)
        gap = batch.scores[best] - batch.scores[worst]
        logged = {"pairs": float(told), "pair_gap": gap.mean().item() if told else 0.0}
        if self.asking is not None and told:
            logged["reward_agrees"] = (gap > 0).float().mean().item()
        losses, norms, right, seen = [], [], 0.0, 0
        parts = min(config.minibatches, told)
        for chunk in minibatches(told, config.epochs if parts else 0, max(parts, 1), self._key(step)):
            total = 0.0
            for places, own in self._pieces(batch, best, worst, chunk.to(best.device)):
                rows = torch.cat([best[places], worst[places]])
                part = batch.experience.rows(rows)
                with self.lm.autocast():
                    logprobs, _ = sequence_logprobs(
                        self.lm.model, part.ids, part.attention, part.start, self.temperature
                    )
                margin = margins(logprobs, batch.reference[rows, : part.mask.shape[1]], part.mask)
                loss = LOSSES[config.loss](margin, wins[places], beta=batch.coefficient).sum() * (own * parts / told)
                self.actor.backward(loss)
                total += loss.item()
                right += own * (margin.detach() > 0).sum().item()
                # Before the first update every difference is the sampling engine's numerics against the trainer's.
                logged.setdefault("logprob_mismatch", mismatch(logprobs.detach(), part.logprobs, part.mask).item())
            (total,) = world.totals(total)
            norms.append(self.actor.step(total))
            losses.append(total)
            seen += len(chunk)
        if losses:
            logged |= {
                "policy_loss": float(np.mean(losses)),
                "pair_accuracy": world.totals(right)[0] / seen,
                "grad_norm": float(np.mean(norms)),
            }
        return {"logprob_mismatch": 0.0, **logged, "updates": float(len(losses))}

    def _by_reward(self, batch: Graded) -> Preferred:
        """The pairs with different scores, and the probability that their (normalised) scores mean as log-odds."""
        best, worst = best_and_worst(batch.scores, batch.group)
        told = batch.scores[best] > batch.scores[worst]
        best, worst = best[told], worst[told]
        return Preferred(best, worst, bradley_terry(batch.scores[best], batch.scores[worst]))

    def _key(self, step: int) -> tuple[int, ...]:
        return (self.run.seed, POLICY_STREAM, step)

    def _pieces(self, batch: Graded, best: Tensor, worst: Tensor, places: Tensor) -> list[tuple[Tensor, bool]]:
        """This process's share of `places` (numbers of pairs) in pieces of at most half of a micro-batch."""
        size = self.config.micro_batch
        lengths = batch.experience.attention.sum(dim=1)
        longest = torch.maximum(lengths[best], lengths[worst])
        return world.pieces(places, longest, None if size is None else max(size // 2, 1))
