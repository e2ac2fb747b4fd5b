"""Which prompts train, which validate, which test: decided by content, once and for all campaigns."""

from __future__ import annotations

import hashlib

from rlhf_core.records import Prompt, Split

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1


def split_of(prompt: Prompt) -> Split:
    """The split of `prompt`: its own where the data names one, else a hash of its group (or of its content).

    The hash knows neither seed nor round, so that a prompt held out today was never trained on and never will be.
    """
    if prompt.split is not None:
        return prompt.split
    digest = hashlib.sha256((prompt.group or prompt.content).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < TEST_SHARE:
        return "test"
    return "validation" if position < TEST_SHARE + VALIDATION_SHARE else "train"
