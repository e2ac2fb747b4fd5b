"""Reward model `bayesian`: a linear judge of words that knows exactly how unsure it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, FitJob, PluginConfig, RewardModel, Scores
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WEIGHTS = "weights.safetensors"
DESCRIPTION = "bayesian.json"
GIVEN, NEW = "<given>", "<new>"


class Bayesian(RewardModel):
    """Bradley-Terry with a normal prior on the weight of every word, fitted in a second, with its whole posterior.

    The score of an answer is the sum of its words' weights. A word that the prompt has too counts as `<given>`, any
    other as itself and as `<new>`: whether an answer keeps to its prompt can be learnt from few labels, whatever the
    prompts are about. Words are hashed (Weinberger et al. 2009), so that one that nobody was asked about yet has a
    weight too, which is as unsure as the prior. The prior's variance is the one under which the answers are most likely
    (MacKay 1992), the posterior Laplace's.

    `members` are draws from the posterior, less their mean and around its mode; `spread` is their standard deviation.
    So selectors and guards that need a committee get one, of any size and for nothing. Scores have mean 0 on training
    samples, and sigma(score(first) - score(second)) is the probability that the first is better.
    """

    modality = TEXT
    learns_from = frozenset({Comparison, Ranking, Rating})

    class Config(PluginConfig):
        """Words, prior, draws."""

        features: int = Field(8192, ge=2)
        """Places that words are hashed to; two words that meet in one share a weight."""
        variances: tuple[float, ...] = Field((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), min_length=1)
        """Variances of the prior to choose from."""
        draws: int = Field(128, ge=2)
        """Members: draws from the posterior. Selectors that look at covariances see them up to 1 / sqrt(draws)."""
        tie_below: float = Field(0.0, ge=0, le=1)
        """Two ratings whose difference is at most this share of their scale are a tie."""

    def set_up(self) -> None:
        """No weights before `fit` or `load`."""
        self.mode: Floats | None = None
        """[features]"""
        self.deviations: Floats
        """[features, draws], mean 0 over draws."""
        self.offset: Floats
        """[1 + draws]: what mode and draws give the average training sample."""

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Find prior and posterior; metrics are those of `rlhf_core.health` on held-out pairs, the prior's variance and
        the mean spread. Raises TrainingError where no answer prefers anything.
        """
        import numpy as np

        from rlhf_core import health
        from rlhf_plugins.reward_models._laplace import laplace

        pairs = job.train.pairs(tie_below=self.config.tie_below)
        if not any(pair.probability != 0.5 for pair in pairs):
            raise TrainingError(
                f"no preference to learn from: {len(job.train)} answers hold {len(pairs)} pairs, none with a winner",
                remedy="Ask more questions, or annotators who compare, rank or rate several samples of a prompt.",
            )
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        counts = self._counts(prompts, [sample for pair in pairs for sample in (pair.first, pair.second)])
        # Words that no pair differs in say nothing: their weights keep the prior, and drop out of the algebra.
        differences = counts[0::2] - counts[1::2]
        known = np.flatnonzero(np.asarray(abs(differences).sum(axis=0)).ravel())
        x = differences[:, known].toarray()
        stated, weight = (np.array([getattr(pair, name) for pair in pairs]) for name in ("probability", "weight"))
        fits = {variance: laplace(x, stated, weight, variance) for variance in self.config.variances}
        variance = max(fits, key=lambda one: fits[one].evidence)
        best = fits[variance]
        self.mode = np.zeros(self.config.features)
        self.mode[known] = best.mode
        normal = np.random.default_rng(self.run.seed).standard_normal((self.config.features, self.config.draws))
        self.deviations = normal * variance**0.5
        self.deviations[known] = best.draws(normal[known])
        self.deviations -= self.deviations.mean(axis=1, keepdims=True)
        self.offset = np.asarray(counts.mean(axis=0)).ravel() @ self._weights()
        found = {
            "reward_train_pairs": Metric(value=len(pairs)),
            "reward_prior_variance": Metric(value=variance),
            "reward_evidence": Metric(value=best.evidence),
        }
        held_out = job.validation.pairs(tie_below=self.config.tie_below)
        if held_out:
            longer = health.longer_wins(health.predictions(pairs, [pair.probability for pair in pairs]))
            found |= health.preference_health(
                health.predict(self, held_out), longer_is_better=longer, seed=self.run.seed
            )
            scores = self.score([pair.prompt for pair in held_out], [pair.first for pair in held_out])
            assert scores.spread is not None
            found["reward_spread"] = Metric(value=float(np.mean(scores.spread)), n=len(held_out))
        return found

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Of mode, and of every draw. Raises RlhfError before anything was learnt."""
        values = self._counts(prompts, samples) @ self._weights() - self.offset
        members = values[:, 1:]
        return Scores(values[:, 0].tolist(), members.std(axis=1).tolist(), members=members.T.tolist())

    def save(self, folder: Path) -> None:
        """Weights as safetensors, their number as JSON."""
        from safetensors.numpy import save_file

        weights = self._weights()
        save_file({"weights": weights, "offset": self.offset}, folder / WEIGHTS)
        shape = {"features": weights.shape[0], "draws": weights.shape[1] - 1}
        (folder / DESCRIPTION).write_text(json.dumps(shape) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Raises RlhfError where another number of features was saved."""
        from safetensors.numpy import load_file

        features = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["features"]
        if features != self.config.features:
            raise RlhfError(
                f"the saved model has {features} features, the pipeline's has {self.config.features}",
                where=str(folder),
                remedy="Load it with the configuration that it was fitted with.",
            )
        saved = load_file(folder / WEIGHTS)
        self.mode, self.offset = saved["weights"][:, 0], saved["offset"]
        self.deviations = saved["weights"][:, 1:] - saved["weights"][:, :1]

    def _weights(self) -> Floats:
        """[features, 1 + draws]: the mode, then the draws."""
        import numpy as np

        if self.mode is None:
            raise RlhfError("the reward model `bayesian` has learnt nothing yet", remedy="Fit it, or load a saved one.")
        return np.concatenate([self.mode[:, None], self.mode[:, None] + self.deviations], axis=1)

    def _counts(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Any:
        """Sparse [N, features]: how often each word occurs."""
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import HashingVectorizer

        from rlhf_plugins.reward_models._learning import text_of

        if not samples:
            # scikit-learn stumbles over nothing.
            return csr_matrix((0, self.config.features))
        hashing = HashingVectorizer(
            n_features=self.config.features, analyzer=list, alternate_sign=False, norm=None, dtype=float
        )
        return hashing.transform(
            [marked(prompt, text_of(sample, self)) for prompt, sample in zip(prompts, samples, strict=True)]
        )


def marked(prompt: Prompt, text: str) -> list[str]:
    """The words of an answer: `<given>` for one that its prompt has too, itself and `<new>` for any other."""
    from rlhf_plugins.values.words import words

    given = set(words(prompt.content))
    return [mark for word in words(text) for mark in ((GIVEN,) if word in given else (word, NEW))]
