import subprocess
import sys
from pathlib import Path

import pytest
from tiny_lm import TEXTS, make_tiny

from rlhf_core.errors import DataError
from rlhf_core.lm.model import weights_digest
from rlhf_core.lm.starter import Starter, make_starter, train_tokenizer

PROGRAM = """
from tiny_lm import make_tiny
from rlhf_core.lm.model import weights_digest
lm = make_tiny(seed=3)
print(weights_digest(lm), lm.tokenizer.backend_tokenizer.to_str())
"""


def test_two_processes_make_the_same_model():
    lm = make_tiny(seed=3)
    here = f"{weights_digest(lm)} {lm.tokenizer.backend_tokenizer.to_str()}"
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": "."}
    command = [sys.executable, "-c", PROGRAM]
    there = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent, env=environment
    )
    assert there.stdout.strip() == here


def test_the_seed_matters_and_the_order_of_texts_does_not():
    assert weights_digest(make_tiny(seed=1)) != weights_digest(make_tiny(seed=2))
    forwards, backwards = train_tokenizer(TEXTS, 320), train_tokenizer([*reversed(TEXTS), TEXTS[0]], 320)
    assert forwards.backend_tokenizer.to_str() == backwards.backend_tokenizer.to_str()


def test_making_one_leaves_the_global_random_stream_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make_tiny()
    assert torch.rand(3).tolist() == expected.tolist()


def test_any_script_survives():
    tokenizer = train_tokenizer(TEXTS, 400)
    assert len(tokenizer) <= 400
    for text in [*TEXTS, "日本語 العربية 🚋\t\n"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(TEXTS[2])) < len(TEXTS[2].encode()), "what was seen often has a token of its own"


def test_default_size_and_ties():
    lm = make_starter(TEXTS, max_prompt_tokens=8, max_new_tokens=8, seed=0)
    parameters = sum(parameter.numel() for parameter in lm.model.parameters())
    assert 900_000 < parameters < 2_000_000
    assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight
    assert len({lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id}) == 3


def test_nothing_to_read_is_an_error():
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([], 300)


def test_odd_shapes_are_an_error():
    with pytest.raises(DataError, match="5 heads"):
        make_starter(TEXTS, shape=Starter(width=32, heads=5), max_prompt_tokens=8, max_new_tokens=8, seed=0)
