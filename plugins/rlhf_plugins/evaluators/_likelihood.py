"""Log-probabilities of texts under a language-model policy, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_core.errors import DataError
from rlhf_core.plugins import LanguageModelPolicy, Policy
from rlhf_core.records import Prompt

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel


def language_model(policy: Policy, who: str) -> LanguageModel:
    """The policy's language model. Raises DataError where it has none."""
    if not isinstance(policy, LanguageModelPolicy):
        raise DataError(
            f"`{who}` reads log-probabilities, which this policy does not have",
            remedy="Use it with a language model such as causal_lm.",
        )
    return policy.lm


def continuation_scores(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    temperature: float = 1.0,
    batch_size: int = 64,
) -> list[tuple[float, float]]:
    """For each continuation, the sums over its tokens of their log-probabilities in nats and of the entropies of the
    distributions they came from. A context must not be empty: its last token predicts the first of the continuation.
    """
    import torch

    from rlhf_core.lm.logprobs import sequence_logprobs

    scores: list[tuple[float, float]] = [(0.0, 0.0)] * len(continuations)
    order = sorted(range(len(continuations)), key=lambda i: (len(continuations[i]), len(contexts[i])))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        width = max(len(contexts[i]) for i in places)
        length = max(max(len(continuations[i]) for i in places), 1)
        ids = torch.full((len(places), width + length), lm.pad_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(places):
            both = torch.tensor([*contexts[i], *continuations[i]])
            begin = width - len(contexts[i])
            ids[row, begin : begin + len(both)] = both
            mask[row, begin : begin + len(both)] = 1
        with torch.inference_mode(), lm.autocast():
            logprobs, entropy = sequence_logprobs(lm.model, ids.to(lm.device), mask.to(lm.device), width, temperature)
        spoken = mask[:, width:].to(lm.device)
        sums = zip((logprobs * spoken).sum(1).tolist(), (entropy * spoken).sum(1).tolist(), strict=True)
        for i, pair in zip(places, sums, strict=True):
            scores[i] = pair
    return scores


def answer_likelihoods(
    lm: LanguageModel, asked: Sequence[str], answers: Sequence[str], batch_size: int = 64
) -> list[tuple[float, int]]:
    """Log P(answer | text before it) in nats, without an end token, and the answer's number of tokens."""
    prompts = [Prompt(text=text) for text in asked]
    contexts = [tokens or [lm.eos_id] for tokens in lm.format.prompt_tokens(prompts)]
    said = [tokens[:-1] for tokens in lm.format.answer_tokens(answers, prompts)]
    return _cut_and_score(lm, contexts, said, batch_size)


def text_likelihoods(lm: LanguageModel, texts: Sequence[str], batch_size: int = 64) -> list[tuple[float, int]]:
    """Log P(text) in nats behind the BOS token, or the EOS token where there is none; and its number of tokens."""
    first = lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.eos_id
    return _cut_and_score(lm, [[first]] * len(texts), plain_tokens(lm, texts), batch_size)


def plain_tokens(lm: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    """Tokens without special ones; text that merely spells a special token stays text."""
    if not texts:
        return []
    rows: list[list[int]] = lm.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return rows


def context_length(lm: LanguageModel) -> int | None:
    """Tokens that the model can see at once; None where there is no limit."""
    return getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)


def _cut_and_score(
    lm: LanguageModel, contexts: Sequence[Sequence[int]], said: Sequence[Sequence[int]], batch_size: int
) -> list[tuple[float, int]]:
    most = context_length(lm)
    if most is not None:
        said = [tokens[: most - 1] for tokens in said]
        contexts = [tokens[-(most - len(answer)) :] for tokens, answer in zip(contexts, said, strict=True)]
    scores = continuation_scores(lm, contexts, said, batch_size=batch_size)
    return [(score, len(tokens)) for (score, _), tokens in zip(scores, said, strict=True)]
