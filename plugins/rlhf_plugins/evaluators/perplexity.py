"""Evaluator `perplexity`: how well the policy still predicts ordinary text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator
from rlhf_core.records import Modality
from rlhf_plugins.evaluators._material import MaterialConfig, need, reads, rows_of


class Perplexity(Evaluator):
    """Perplexity on held-out text: what alignment may cost in plain language modelling.

    `perplexity` is exp of the mean negative log-likelihood a token, `word_perplexity` a white-space separated word,
    and `bits_per_byte` its base-2 logarithm a byte of UTF-8, which alone compares models with different vocabularies.
    Text is cut into windows that do not overlap; each begins anew behind the BOS token. Intervals are over windows.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(MaterialConfig):
        """Which text."""

        data: str
        """A plain text file (`.txt`), a table with a column of texts, or a data set of the hub."""
        split: str = "test"
        """On the hub: the split."""
        column: str = "text"
        """The column of texts, where it is a table."""
        window: int | None = Field(None, ge=2)
        """Tokens a window. Left out: as many as the model can see, at most 512."""
        most_tokens: int = Field(100_000, ge=1)
        """Only so many tokens are read."""
        batch_size: int = Field(16, ge=1)
        """Windows scored side by side."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """Three views of one likelihood."""
        return frozenset({"perplexity", "word_perplexity", "bits_per_byte"})

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The file."""
        return reads(config)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Score `job.policy`. Raises DataError where it is no language model or there is no text."""
        from rlhf_plugins.evaluators._likelihood import (
            context_length,
            continuation_scores,
            language_model,
            plain_tokens,
        )

        lm = language_model(job.policy, "perplexity")
        size = self.config.window or min(context_length(lm) or 512, 512)
        windows: list[list[int]] = []
        read = size_bytes = words = 0
        for text in self._texts():
            if read >= self.config.most_tokens:
                break
            (tokens,) = plain_tokens(lm, [text])
            tokens = tokens[: self.config.most_tokens - read]
            kept = lm.tokenizer.decode(tokens) if len(tokens) + read == self.config.most_tokens else text
            size_bytes, words, read = size_bytes + len(kept.encode()), words + len(kept.split()), read + len(tokens)
            # The first token of a window is predicted from the BOS token, which takes a place.
            windows += [tokens[i : i + size - 1] for i in range(0, len(tokens), size - 1)]
        if not windows:
            raise DataError("there is no text to predict", where=self.config.data)
        first = lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.eos_id
        scores = continuation_scores(lm, [[first]] * len(windows), windows, batch_size=self.config.batch_size)
        return Evaluation(
            perplexities([s for s, _ in scores], list(map(len, windows)), words, size_bytes, self.run.seed)
        )

    def _texts(self) -> list[str]:
        path = Path(self.config.data).expanduser()
        if path.suffix == ".txt":
            try:
                return [path.read_text(encoding="utf-8")]
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read the text: {error}", where=str(path)) from error
        return [str(need(row, self.config.column, self.config.data)) for row in rows_of(self.config)]


def perplexities(
    scores: Sequence[float], lengths: Sequence[int], words: int, size_bytes: int, seed: int = 0
) -> dict[str, Metric]:
    """From the log-likelihoods in nats of N windows, their numbers of tokens, and the words and bytes of all text."""
    tokens = sum(lengths)
    per_window = bootstrap([-score / length for score, length in zip(scores, lengths, strict=True)], seed=seed)
    assert per_window.low is not None and per_window.high is not None
    nats = -sum(scores) / tokens
    # The interval of the mean over windows, moved to the mean over tokens: the last window is a shorter one.
    low, high = (nats + bound - per_window.value for bound in (per_window.low, per_window.high))

    def metric(per_token: float, exponential: bool) -> Metric:
        of = math.exp if exponential else float
        value, a, b = (of(x * per_token) for x in (nats, low, high))
        return Metric(value=value, low=a, high=b, n=len(scores))

    return {
        "perplexity": metric(1.0, True),
        "word_perplexity": metric(tokens / max(words, 1), True),
        "bits_per_byte": metric(tokens / max(size_bytes, 1) / math.log(2), False),
    }
