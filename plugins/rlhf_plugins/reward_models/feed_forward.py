"""Reward model `feed_forward`: a small network on the words of an answer, for minutes of data and seconds of time."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlhf_core.errors import TrainingError
from rlhf_core.plugins import FitJob
from rlhf_core.records import Comparison, Ranking, Rating
from rlhf_plugins.reward_models._learning import Asked, LearntReward, PreferenceConfig

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._features import FeatureRow
    from rlhf_plugins.reward_models._objectives import Pairs

WEIGHTS = "network.safetensors"
VOCABULARY = "vocabulary.json"


class FeedForward(LearntReward):
    """Bradley-Terry on TF-IDF features of words and pairs of words, through one hidden layer.

    Needs no language model, fits in seconds, and is hard to beat with few labels; it knows nothing of word order
    beyond neighbours, nor of the prompt. Learns from the same feedback as `pairwise`.
    """

    learns_from = frozenset({Comparison, Ranking, Rating})
    description = "feed_forward.json"

    class Config(PreferenceConfig):
        """Features and network."""

        epochs: int = Field(10, ge=1)
        """Passes over the training pairs, at most."""
        lr: float = Field(3e-3, gt=0)
        """Learning rate at its height."""
        features: int = Field(20_000, ge=1)
        """The most frequent words and pairs of words that count."""
        rarest: int = Field(2, ge=1)
        """Texts that a word must occur in to count."""
        hidden: int = Field(64, ge=0)
        """Width of the hidden layer; 0 for none, which is logistic regression on the features' difference and, with
        `epochs: 3`, did better on most of the real feedback in `benchmarks/README.md`."""

    def _items(self, feedback: FeedbackSet) -> list[Any]:
        return feedback.pairs(tie_below=self.config.tie_below)

    def _lessons(self, feedback: FeedbackSet) -> list[Any]:
        return feedback.pairs(tie_below=self.config.tie_below, weigh=self.config.weigh_annotators)

    def _informative(self, items: Sequence[Any]) -> int:
        return sum(pair.probability != 0.5 for pair in items)

    def _objective(self, items: Sequence[Any]) -> Pairs:
        return self._tensors(items)

    def _training(self, items: Sequence[Any]) -> Pairs:
        from rlhf_plugins.reward_models._preferences import for_training

        return for_training(self._tensors(items), items, self.config)

    def _start(self, job: FitJob, items: Sequence[Any] = ()) -> None:
        """Features of the training texts and an untrained network; or the last round's, with its vocabulary."""
        from rlhf_plugins.reward_models._features import FeatureNetwork, Features

        if self._continues(job.previous):
            assert isinstance(job.previous, FeedForward)
            self.features = job.previous.features
            self._valuer = copy.deepcopy(job.previous._valuer)
            return
        pairs = self._items(job.train)
        texts = sorted({str(sample.text) for pair in pairs for sample in (pair.first, pair.second)})
        self.features = Features.of(texts, self.config.features, self.config.rarest)
        if not len(self.features):
            raise TrainingError(
                "no word occurs often enough to be learnt from", remedy="Lower `reward.rarest`, or bring more feedback."
            )
        self._valuer = FeatureNetwork(len(self.features), self.config.hidden, self.config.dropout, self.run.seed)

    def _rows(self, asked: Sequence[Asked]) -> list[FeatureRow]:  # type: ignore[override]
        return self.features.rows([one.answers for one in asked])

    def save(self, folder: Path) -> None:
        """Network as safetensors, vocabulary as JSON."""
        from safetensors.torch import save_file

        self._learnt("Fit it before saving it.")
        state = {name: tensor.contiguous() for name, tensor in self._valuer.scalar.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        (folder / VOCABULARY).write_text(json.dumps(self.features.to_json(), ensure_ascii=False) + "\n", "utf-8")
        self._write(folder, {})

    def load(self, folder: Path) -> None:
        """Ready to score, and to be continued from."""
        from safetensors.torch import load_file

        from rlhf_plugins.reward_models._features import FeatureNetwork, Features

        self._read(folder)
        self.features = Features.from_json(json.loads((folder / VOCABULARY).read_text(encoding="utf-8")))
        self._valuer = FeatureNetwork(len(self.features), self.config.hidden, self.config.dropout, self.run.seed)
        self._valuer.scalar.load_state_dict(load_file(folder / WEIGHTS))
        self._valuer.scalar.eval()
