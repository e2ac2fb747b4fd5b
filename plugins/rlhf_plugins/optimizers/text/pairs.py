"""Learning which of two answers is preferred: direct preference optimisation on answers of the policy itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.rl.groups import best_and_worst
from rlhf_core.rl.importance import mismatch
from rlhf_core.rl.preferences import bradley_terry, dpo_loss, ipo_loss, margins
from rlhf_plugins.optimizers.text import world
from rlhf_plugins.optimizers.text.grading import Graded
from rlhf_plugins.optimizers.text.learner import POLICY_STREAM, Learner, minibatches

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


class PairLearner(Learner):
    """Takes the best and the worst answer to each prompt as a pair; pairs of equal scores teach nothing."""

    def learn(self, batch: Graded, step: int) -> dict[str, float]:
        """One pass or several over the pairs; the coefficient of the divergence is the loss's beta."""
        config = self.config
        best, worst = best_and_worst(batch.scores, batch.group)
        first, second = batch.scores[best], batch.scores[worst]
        told = (first > second).nonzero().squeeze(1)
        best, worst, first, second = (each[told] for each in (best, worst, first, second))
        wins = bradley_terry(first, second) if config.labels == "soft" else torch.ones_like(first)
        logged = {"pairs": float(len(told)), "pair_gap": (first - second).mean().item() if len(told) else 0.0}
        losses, norms, right, seen = [], [], 0.0, 0
        parts = min(config.minibatches, len(told))
        for chunk in minibatches(len(told), config.epochs if parts else 0, max(parts, 1), self._key(step)):
            total = 0.0
            for places in self._pieces(batch, best, worst, chunk.to(best.device)):
                rows = torch.cat([best[places], worst[places]])
                part = batch.experience.rows(rows)
                with self.lm.autocast():
                    logprobs, _ = sequence_logprobs(
                        self.lm.model, part.ids, part.attention, part.start, self.temperature
                    )
                margin = margins(logprobs, batch.reference[rows, : part.mask.shape[1]], part.mask)
                loss = LOSSES[config.loss](margin, wins[places], beta=batch.coefficient).sum() * parts / len(told)
                loss.backward()
                total += loss.item()
                right += (margin.detach() > 0).sum().item()
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

    def _key(self, step: int) -> tuple[int, ...]:
        return (self.run.seed, POLICY_STREAM, step)

    def _pieces(self, batch: Graded, best: Tensor, worst: Tensor, places: Tensor) -> list[Tensor]:
        """This process's share of `places` (numbers of pairs) in pieces of at most half of a micro-batch."""
        size, places = self.config.micro_batch, world.share(places)
        if size is None:
            return [places] if len(places) else []
        lengths = batch.experience.attention.sum(dim=1)
        longest = torch.maximum(lengths[best[places]], lengths[worst[places]])
        return list(places[longest.argsort(stable=True)].split(max(size // 2, 1)))
