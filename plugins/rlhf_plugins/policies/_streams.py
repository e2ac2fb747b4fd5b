"""Random streams of policies: one for each answer, named by seed, prompt and number."""

from __future__ import annotations

import hashlib

from rlhf_core.records import Prompt


def row_seed(seed: int, prompt: Prompt, number: int) -> int:
    """The seed of the random stream of answer `number` to `prompt`, 64 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt.id} {number}".encode()).digest()[:8], "big")
