"""A small language model made from nothing but the texts at hand, for when there is no model to download."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.lm.dtypes import Dtype, compute_dtype
from rlhf_core.lm.loading import best_device
from rlhf_core.lm.model import LanguageModel
from rlhf_core.plugins.base import PluginConfig

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"


class Starter(PluginConfig):
    """Size of the model that `starter` makes; the defaults train in a minute on two CPU cores."""

    vocab_size: int = Field(1536, ge=300)
    """The most tokens the tokenizer may have: 256 bytes, 3 special tokens, the rest learnt from the texts."""
    layers: int = Field(3, ge=1)
    """Number of transformer blocks."""
    width: int = Field(160, ge=16)
    """Size of the hidden states; a multiple of `heads`."""
    heads: int = Field(4, ge=1)
    """Attention heads in each block."""


def make_starter(
    texts: Iterable[str],
    *,
    shape: Starter | None = None,
    max_prompt_tokens: int,
    max_new_tokens: int,
    seed: int,
    dtype: Dtype = "auto",
) -> LanguageModel:
    """A randomly initialised Llama and a byte-level BPE tokenizer trained on `texts` (any language or script).

    Equal texts, shape and seed give the same tokenizer and bit-identical weights, in any process on one machine.
    Raises DataError where there is no text to learn a vocabulary from.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shape or Starter()
    if shape.width % (2 * shape.heads):
        raise DataError(
            f"a starter {shape.width} wide cannot have {shape.heads} heads",
            remedy="The width must be an even multiple of the number of heads.",
        )
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.width * 8 // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=max_prompt_tokens + max_new_tokens,
        tie_word_embeddings=True,
        # Llama's own 0.02 suits widths in the thousands; a narrow model learns to copy far sooner from a wider start.
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return LanguageModel(
        model.to(best_device()),
        tokenizer,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        compute_dtype=compute_dtype(dtype, shape.width),
    )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with BOS, EOS and PAD; every text survives encoding and decoding unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    known = sorted(set(texts))
    if not any(known):
        raise DataError("there is no text to make a starter model from", remedy="Check what the data sources yield.")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(known, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD)
