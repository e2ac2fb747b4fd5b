"""Texts as TF-IDF features, and a small network on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_plugins.values.words import words


class FeatureRow(NamedTuple):
    """Answers to one prompt as sparse vectors: places and values of what is not zero."""

    answers: list[tuple[NDArray[np.int64], NDArray[np.float32]]]

    @property
    def length(self) -> int:
        """All rows cost the same."""
        return 1

    @property
    def shares(self) -> None:
        """Nothing."""


def grams(text: str) -> list[str]:
    """The words of a text, in any script, and its pairs of neighbours."""
    found = words(text)
    return [*found, *(f"{a} {b}" for a, b in pairwise(found))]


class Features:
    """A vocabulary with the weights of its words; scikit-learn's TF-IDF, kept as JSON."""

    def __init__(self, vectorizer: Any) -> None:
        self.vectorizer = vectorizer

    @classmethod
    def of(cls, texts: Sequence[str], most: int, rarest: int) -> Self:
        """The vocabulary of some texts; empty where no word occurs in `rarest` of them."""
        vectorizer = _vectorizer(max_features=most, min_df=rarest)
        try:
            vectorizer.fit(texts)
        except ValueError:
            # scikit-learn's way of saying that no word is left.
            vectorizer.vocabulary_ = {}
        return cls(vectorizer)

    def __len__(self) -> int:
        return len(self.vectorizer.vocabulary_)

    def rows(self, asked: Sequence[Sequence[str]]) -> list[FeatureRow]:
        """One row for each group of texts."""
        texts = [text for group in asked for text in group]
        if not texts:
            return []
        matrix = self.vectorizer.transform(texts).tocsr()
        parts = iter(
            (matrix.indices[a:b].astype(np.int64), matrix.data[a:b].astype(np.float32))
            for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)
        )
        return [FeatureRow([next(parts) for _ in group]) for group in asked]

    def to_json(self) -> dict[str, Any]:
        """Words in the order of their places, and their weights."""
        places = self.vectorizer.vocabulary_
        return {"words": sorted(places, key=places.get), "weights": self.vectorizer.idf_.tolist()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        vectorizer = _vectorizer(vocabulary={word: place for place, word in enumerate(saved["words"])})
        vectorizer.idf_ = np.array(saved["weights"])
        return cls(vectorizer)


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=grams, sublinear_tf=True, **options)


class FeatureNetwork:
    """Values of answers from their features."""

    def __init__(self, features: int, hidden: int, dropout: float, seed: int) -> None:
        self.scalar: torch.nn.Module = _Layers(features, hidden, dropout, seed)

    def values(self, rows: Sequence[FeatureRow]) -> torch.Tensor:
        """[A] float32, with gradients."""
        answers = [answer for row in rows for answer in row.answers]
        device = next(self.scalar.parameters()).device
        places = torch.from_numpy(np.concatenate([a[0] for a in answers])).to(device)
        weights = torch.from_numpy(np.concatenate([a[1] for a in answers])).to(device)
        sizes = np.array([len(a[0]) for a in answers])
        starts = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)
        values: torch.Tensor = self.scalar(places, starts, weights)
        return values

    @torch.no_grad()
    def score(self, rows: Sequence[FeatureRow], batch: int = 1024) -> NDArray[np.float64]:
        """`values` without dropout and gradients."""
        training = self.scalar.training
        self.scalar.eval()
        parts = [self.values(rows[i : i + batch]).double().cpu().numpy() for i in range(0, len(rows), batch)]
        self.scalar.train(training)
        return np.concatenate(parts) if parts else np.empty(0)


class _Layers(torch.nn.Module):
    """Weighted sum of the features' vectors, ReLU, dropout, one number; or the weighted sum of numbers alone."""

    def __init__(self, features: int, hidden: int, dropout: float, seed: int) -> None:
        super().__init__()
        width = hidden or 1
        generator = torch.Generator().manual_seed(seed)
        self.bag = torch.nn.EmbeddingBag(features, width, mode="sum")
        torch.nn.init.normal_(self.bag.weight, std=0.1 if hidden else 0.0, generator=generator)
        self.bias = torch.nn.Parameter(torch.zeros(width))
        self.dropout = torch.nn.Dropout(dropout)
        self.last = torch.nn.Linear(width, 1, bias=False) if hidden else None
        if self.last is not None:
            torch.nn.init.normal_(self.last.weight, std=hidden**-0.5, generator=generator)

    def forward(self, places: torch.Tensor, starts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[A] from the features of A answers laid end to end."""
        found = self.bag(places, starts, per_sample_weights=weights) + self.bias
        if self.last is None:
            return found.squeeze(-1)
        values: torch.Tensor = self.last(self.dropout(found.relu())).squeeze(-1)
        return values
