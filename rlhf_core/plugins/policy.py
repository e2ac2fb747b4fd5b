"""What is being aligned: anything that answers prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rlhf_core.plugins.base import TEXT, Saved
from rlhf_core.records import Answer, Modality, Prompt, Sample

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel


class Policy(Saved):
    """Answers prompts with samples. `save` and `load` carry the trained state between stages and rounds."""

    kind: ClassVar[str] = "policies"
    version: str = ""
    """Identity of the weights, set by whoever loads them; stamped on samples."""
    round: int = 0
    """Round in which the policy samples; stamped on samples."""

    def prepare(self, prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> None:
        """Become usable for the first time: load the weights named in the config, or make some from this data."""
        raise NotImplementedError

    def sample(self, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """`n` samples for each prompt, in the prompts' order.

        Equal seed, weights and prompt give equal samples, whatever the other prompts of the call are.
        """
        raise NotImplementedError


class LanguageModelPolicy(Policy):
    """A policy that is a causal language model; what text optimizers train."""

    modality: ClassVar[frozenset[Modality]] = TEXT
    lm: LanguageModel
    """Model, tokenizer and prompt format."""
    temperature: float = 1.0
    """What logits are divided by in sampling, and so in every log-probability of its answers."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer; its text is what stands before them."""
