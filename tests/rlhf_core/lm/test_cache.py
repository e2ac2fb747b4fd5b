import torch
from tiny_lm import make_tiny
from transformers import MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicLayer

from rlhf_core.lm.cache import GrowingLayer, growing_cache


def test_it_holds_what_the_copying_layer_holds():
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(12), DynamicLayer()

    def feed(rows, tokens):
        keys, values = torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)
        for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(one, other)

    feed(3, 5)
    feed(3, 1)
    for index in (torch.tensor([0, 2]), torch.tensor([1, 1, 0, 0])):
        ours.reorder_cache(index)
        theirs.reorder_cache(index)
        assert ours.get_seq_length() == theirs.get_seq_length()
        feed(len(index), 1)
    assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_growing_copies_nothing():
    layer = GrowingLayer(8)
    first, _ = layer.update(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))
    second, _ = layer.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))
    assert first.data_ptr() == second.data_ptr()


def test_sliding_windows_keep_their_own_layers():
    assert all(isinstance(layer, GrowingLayer) for layer in growing_cache(make_tiny().model, 8).layers)
    shape = {
        "vocab_size": 32,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    sliding = MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=1, sliding_window=4))
    assert not any(isinstance(layer, GrowingLayer) for layer in growing_cache(sliding, 8).layers)
