"""The loss on pairs, and the batches that they are learnt in."""

import math

import numpy as np
import pytest
import torch

from rlhf_plugins.reward_models._bradley_terry import batches_by_length, groups_of, preference_loss, set_dropout


def test_loss_by_hand():
    margins, stated = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.25])
    first = math.log(1 + math.exp(-2))
    second = 0.25 * math.log(1 + math.exp(1)) + 0.75 * math.log(1 + math.exp(-1))
    found = preference_loss(margins, stated, torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx((first + 3 * second) / 2, rel=1e-6)
    swapped = preference_loss(-margins, 1 - stated, torch.tensor([1.0, 3.0]))
    assert swapped.item() == pytest.approx(found.item(), rel=1e-6)


def test_batches_hold_everything_once():
    lengths = np.random.default_rng(0).integers(5, 100, 1000)
    alone = groups_of([None] * 1000)
    batches = batches_by_length(lengths, alone, 16, np.random.default_rng([0, 0]))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 15
    other = batches_by_length(lengths, alone, 16, np.random.default_rng([0, 1]))
    assert any(set(a) != set(b) for a, b in zip(batches, other, strict=True))
    assert batches_by_length(lengths[:0], alone[:0], 16, np.random.default_rng(0)) == []


def test_items_that_share_something_are_in_one_batch():
    rng = np.random.default_rng(0)
    shared = [*rng.integers(0, 150, 860), *[500] * 40]
    groups, lengths = groups_of(shared), rng.integers(5, 100, 900)
    assert all((groups[i] == groups[j]) == (shared[i] == shared[j]) for i in range(40) for j in range(900))
    counts, together = set(), set()
    for epoch in range(20):
        batches = batches_by_length(lengths, groups, 32, np.random.default_rng([0, epoch]))
        assert sorted(np.concatenate(batches)) == list(range(900))
        assert max(map(len, batches)) == 32
        counts.add(len(batches))
        # A batch's border may cut a group in two, nothing else does; but one prompt of everything is no group.
        small = [groups[batch][groups[batch] != groups[-1]] for batch in batches]
        assert sum(len(set(here)) for here in small) <= len(set(groups)) - 1 + len(batches)
        together.add(frozenset(frozenset(batch[groups[batch] == groups[-1]]) for batch in batches))
    assert counts == {29}, "resuming counts on equally many steps in every epoch"
    assert len(together) == 20


def test_dropout_leaves_attention_to_the_fused_kernels():
    from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

    shape = {"num_hidden_layers": 1, "vocab_size": 20}
    llama = LlamaModel(LlamaConfig(hidden_size=8, intermediate_size=8, num_attention_heads=2, **shape))
    gpt2 = GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20))
    for model in (llama, gpt2):
        set_dropout(model, 0.25)
    assert llama.layers[0].self_attn.attention_dropout == 0
    block = gpt2.h[0]
    assert (block.attn.attn_dropout.p, block.attn.resid_dropout.p, block.mlp.dropout.p, gpt2.drop.p) == (0, *[0.25] * 3)
