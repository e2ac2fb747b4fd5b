"""How the policy's language changed: divergence, entropy, length, diversity, repetition, endings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import TEXT, EvaluateJob, Evaluation, Evaluator, LanguageModelPolicy, PluginConfig
from rlhf_core.records import Modality, Prompt, Sample
from rlhf_plugins.evaluators._likelihood import continuation_scores

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

METRICS = frozenset({"kl", "entropy", "length", "eos_rate", "repetition", "distinct_1", "distinct_2"})


class Generation(Evaluator):
    """Measures the challenger's own samples on held-out prompts; needs no judge.

    `kl`: KL divergence of the policy from the warm-started reference in nats per answer, the mean over samples of
    log pi - log ref summed over the answer's tokens (Schulman's k1: unbiased, and may be negative on few samples).
    `entropy`: nats per token. `length`: tokens, EOS included. `eos_rate`: share of answers that ended by themselves.
    `repetition`: share of an answer's token trigrams that it had already said. `distinct_1`, `distinct_2`: different
    token n-grams per n-gram over all answers (Li et al. 2016); compare only between equally many answers.
    Intervals are over prompts.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT

    class Config(PluginConfig):
        """How to compute."""

        batch_size: int = Field(64, ge=1)
        """Answers scored side by side; the memory limit, not a matter of quality."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """The same with every config."""
        return METRICS

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Score `job.samples["challenger"]` by both models. Raises DataError where the samples have no tokens."""
        policy, reference = job.policy, job.reference
        if not (isinstance(policy, LanguageModelPolicy) and isinstance(reference, LanguageModelPolicy)):
            raise DataError(
                "the generation evaluator reads log-probabilities, which this policy does not have",
                remedy="Use it with a language model such as causal_lm.",
            )
        groups = job.samples["challenger"]
        asked = [prompt for prompt, samples in zip(job.prompts, groups, strict=True) for _ in samples]
        samples = list(chain.from_iterable(groups))
        if not samples or not all(sample.tokens for sample in samples):
            raise DataError("the challenger's samples carry no tokens", remedy="Sample them from a language model.")
        under_policy, under_reference = (
            answer_scores(each.lm, asked, samples, policy.temperature, self.config.batch_size)
            for each in (policy, reference)
        )
        tokens = [sample.tokens for sample in samples]
        mean_length = sum(map(len, tokens)) / len(tokens)

        def per_prompt(values: Sequence[float]) -> Metric:
            rest = iter(values)
            return bootstrap([_mean([next(rest) for _ in group]) for group in groups if group])

        return Evaluation(
            metrics={
                "kl": per_prompt(
                    [ours[0] - theirs[0] for ours, theirs in zip(under_policy, under_reference, strict=True)]
                ),
                "entropy": per_prompt([entropy / mean_length for _, entropy in under_policy]),
                "length": per_prompt([len(row) for row in tokens]),
                "eos_rate": per_prompt([float(sample.finished) for sample in samples]),
                "repetition": per_prompt([repetition(row) for row in tokens]),
                "distinct_1": Metric(value=distinct(tokens, 1), n=len(tokens)),
                "distinct_2": Metric(value=distinct(tokens, 2), n=len(tokens)),
            }
        )


def answer_scores(
    lm: LanguageModel, prompts: Sequence[Prompt], samples: Sequence[Sample], temperature: float, batch_size: int
) -> list[tuple[float, float]]:
    """For each sample, the sums over its tokens of their log-probabilities and of the entropies they came from."""
    asked = lm.format.prompt_tokens(prompts)
    return continuation_scores(lm, asked, [sample.tokens for sample in samples], temperature, batch_size)


def distinct(rows: Sequence[Sequence[int]], n: int) -> float:
    """Different n-grams over all n-grams of `rows`; 0 where there are none."""
    grams = [gram for row in rows for gram in ngrams(row, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(row: Sequence[int], n: int = 3) -> float:
    """Share of the n-grams of `row` that occurred in it before; 0 where there are none."""
    grams = list(ngrams(row, n))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def ngrams(row: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    """All runs of n neighbours."""
    return zip(*(row[i:] for i in range(n)), strict=False)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
