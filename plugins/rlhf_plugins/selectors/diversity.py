"""Selector `diversity`: ask about answers that are unlike those asked about already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlhf_core import Sample
from rlhf_plugins.selectors._active import ActiveConfig, ActiveSelector, Choice, Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Diversity(ActiveSelector):
    """Chooses pairs that cover the ways in which answers differ: the core set of Sener and Savarese 2018.

    A pair is the difference of its two answers' TF-IDF vectors, up to its sign. One pair after the other is taken that
    is farthest from all taken so far (greedy k-centre), so that no two questions ask about the same difference. The
    reward model is not asked; it is only waited for, so that the first round is drawn by lot as with every selector.
    """

    class Config(ActiveConfig):
        """How much is left to chance, and how texts are compared."""

        features: int = Field(4096, ge=1)
        """The most frequent words that count."""

    def best(self, pairs: Sequence[Pair], differences: Floats, count: int) -> list[Choice]:
        """Greedy k-centre, at most one pair of a prompt."""
        import numpy as np

        vectors = self._differences(pairs)
        sizes = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        prompts = np.array([pair.candidate.prompt.id for pair in pairs])
        nearest = np.full(len(pairs), np.inf)
        open_ = np.ones(len(pairs), dtype=bool)
        chosen: list[Choice] = []
        place = int(np.argmax(sizes))
        while len(chosen) < count:
            distance = float(sizes[place] if np.isinf(nearest[place]) else nearest[place])
            chosen.append(Choice(pairs[place], f"diverse: {distance:.2f} from every other question"))
            open_ &= prompts != prompts[place]
            if not open_.any():
                break
            along = np.asarray((vectors @ vectors[place].T).todense()).ravel()
            # The nearer of d and -d: swapping the two answers is no other question.
            squared = sizes**2 + sizes[place] ** 2 - 2 * np.abs(along)
            nearest = np.minimum(nearest, np.sqrt(np.maximum(squared, 0)))
            place = int(np.argmax(np.where(open_, nearest, -1.0)))
        return chosen

    def _differences(self, pairs: Sequence[Pair]) -> Any:
        """Sparse [N, features]."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        from rlhf_plugins.values.words import words

        first, second = ([_text(getattr(pair, side)) for pair in pairs] for side in ("first", "second"))
        vectorizer = TfidfVectorizer(analyzer=words, max_features=self.config.features)
        vectorizer.fit([*first, *second, "-"])
        return (vectorizer.transform(first) - vectorizer.transform(second)).tocsr()


def _text(sample: Sample) -> str:
    """What is compared: the answer's words, or a trajectory's actions as words."""
    if sample.text is not None:
        return sample.text
    assert sample.trajectory is not None
    return " ".join(f"a{'_'.join(f'{value:.0f}' for value in action)}" for action in sample.trajectory.actions)
