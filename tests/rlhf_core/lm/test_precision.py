import copy

import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.lm.dtypes import choose_dtype
from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.model import weights_digest
from rlhf_core.lm.precision import computes_again, weights_in
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the senate approved"), Prompt(text="the tram line")]


def loss(lm):
    ids, mask = lm.encode(PROMPTS)
    return -sequence_logprobs(lm.model, ids, mask, 2)[0].mean()


def test_inside_it_computes_as_a_copy_in_that_type_and_afterwards_as_before(lm):
    ids, mask = lm.encode(PROMPTS)
    lower = copy.deepcopy(lm.model)
    for weight in lower.parameters():  # `to` would round the buffers, the frequencies of the positions, too
        weight.data = weight.data.to(torch.bfloat16)
    before, digest = lm.model(input_ids=ids, attention_mask=mask).logits, weights_digest(lm)
    with weights_in(lm.model, torch.bfloat16):
        inside = lm.model(input_ids=ids, attention_mask=mask).logits
    assert inside.dtype == torch.bfloat16
    assert torch.equal(inside, lower(input_ids=ids, attention_mask=mask).logits)
    assert torch.equal(lm.model(input_ids=ids, attention_mask=mask).logits, before)
    assert weights_digest(lm) == digest


def test_gradients_reach_the_float32_weights_and_tied_ones_stay_tied(lm):
    loss(lm).backward()
    full = {name: weight.grad.clone() for name, weight in lm.model.named_parameters()}
    lm.model.zero_grad()
    with weights_in(lm.model, torch.bfloat16):
        assert lm.model.get_input_embeddings().weight is lm.model.get_output_embeddings().weight
        lower = loss(lm)
    lower.backward()
    for name, weight in lm.model.named_parameters():
        assert weight.grad.dtype == torch.float32
        assert torch.cosine_similarity(weight.grad.flatten(), full[name].flatten(), dim=0) > 0.99, name


def test_weights_come_back_after_an_error(lm):
    with pytest.raises(KeyError), weights_in(lm.model, torch.bfloat16):
        raise KeyError
    assert {weight.dtype for weight in lm.model.parameters()} == {torch.float32}


def test_a_backward_pass_that_computes_again_is_told(lm):
    assert not computes_again(lm.model)
    lm.model.gradient_checkpointing_enable()
    assert computes_again(lm.model)
    lm.compute_dtype = torch.bfloat16
    lm.model.train()
    with lm.autocast():
        value = loss(lm)
    value.backward()
    assert all(weight.grad.isfinite().all() for weight in lm.model.parameters())


@pytest.mark.parametrize(
    ("can", "width", "dtype", "why"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, 32, torch.bfloat16, "AMX"),
        ({"avx512_bf16": True}, 256, torch.bfloat16, "AVX512_BF16"),
        ({"avx512_bf16": True}, None, torch.bfloat16, "less than 256"),
        ({"avx512_bf16": True}, 160, torch.float32, "160 wide"),
        ({"avx2": True}, 4096, torch.float32, "neither"),
    ],
)
def test_the_format_follows_from_hardware_and_width(monkeypatch, can, width, dtype, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    chosen, reason = choose_dtype(width)
    assert chosen == dtype
    assert why in reason


def test_a_starter_is_computed_in_what_suits_its_width():
    lm = make_tiny()
    assert lm.compute_dtype == choose_dtype(32)[0]
