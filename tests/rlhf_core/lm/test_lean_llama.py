import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    StableLmConfig,
)

from rlhf_core.lm import lean_llama as module
from rlhf_core.lm.attention import PackedAttention, packed_output
from rlhf_core.lm.lean_llama import lean_llama
from rlhf_core.lm.packing import pack
from rlhf_core.lm.precision import weights_in

SHAPE = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}


def make(config, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:  # norms and biases begin at 1 and 0, which would hide what is done with them
                weight.add_(torch.randn_like(weight), alpha=0.3)
            elif "embed" not in name:
                weight.mul_(8)
    return model


def packed_rows():
    """Two answers to each of two prompts; some end early."""
    ids = torch.randint(3, 300, (4, 12), generator=torch.Generator().manual_seed(1))
    ids[1, :6], ids[3, :6] = ids[0, :6], ids[2, :6]
    mask = torch.ones_like(ids)
    mask[1, 9:], mask[2, 11:] = 0, 0
    return pack(ids, mask, 6)


def run(model, *, packed):
    """Logits of the lean pass where they are asked for."""
    rows = packed_rows()
    lean = lean_llama(model, packed=packed)
    assert lean is not None
    return lean(rows.ids.unsqueeze(0), rows.positions.unsqueeze(0), PackedAttention(rows), rows.asked_for)[0]


@torch.no_grad()
def both(model, *, packed=True):
    """Logits of the lean pass and of the model's own."""
    return run(model, packed=packed), packed_output(model, packed_rows()).logits[0]


LIKE_LLAMA = [
    LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    LlamaConfig(**SHAPE, tie_word_embeddings=True),
    LlamaConfig(**GROUPED, head_dim=16),
    MistralConfig(**GROUPED, sliding_window=None),
    Qwen2Config(**GROUPED),
    Qwen3Config(**GROUPED, head_dim=16),
    GemmaConfig(**GROUPED, head_dim=8),
]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "for training"])
@pytest.mark.parametrize("config", LIKE_LLAMA, ids=lambda config: config.model_type)
def test_it_computes_what_the_model_computes(config, packed):
    ours, own = both(make(config), packed=packed)
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


def gradients(model, logits):
    slope = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    logits.backward(slope.to(logits.dtype))
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("config", LIKE_LLAMA, ids=lambda config: config.model_type)
def test_gradients_are_the_models_own(config):
    model = make(config)
    ours = gradients(model, run(model, packed=False))
    own = gradients(model, packed_output(model, packed_rows()).logits[0])
    assert ours.keys() == own.keys()
    for name, slope in own.items():
        torch.testing.assert_close(ours[name], slope, atol=2e-4 * slope.abs().max().item(), rtol=1e-3, msg=name)


def test_in_bfloat16_too():
    model = make(LIKE_LLAMA[0])
    for packed in (True, False):
        with weights_in(model, torch.bfloat16):
            ours, own = both(model, packed=packed)
        assert ours.dtype == torch.bfloat16
        assert (ours - own).abs().max() <= 0.03 * own.abs().max()


def test_gradients_of_bfloat16_copies_are_as_near_to_the_truth_as_the_models_own():
    model = make(LIKE_LLAMA[0])
    names = dict(model.named_parameters()).keys()

    def flat(logits):
        found = gradients(model, logits)
        return torch.cat([found[name].flatten() for name in names])

    truth = flat(packed_output(model, packed_rows()).logits[0])
    with weights_in(model, torch.bfloat16):
        ours, own = run(model, packed=False), packed_output(model, packed_rows()).logits[0]
    error, before = ((flat(logits) - truth).norm() / truth.norm() for logits in (ours, own))
    assert next(model.parameters()).grad.dtype == torch.float32
    assert error <= 1.2 * before


OTHERS = [
    GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2),
    # Parts of the same names, with which more is done: factors, another turning of queries and keys, other places.
    GraniteConfig(**GROUPED, embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=4.0),
    CohereConfig(**GROUPED),
    Olmo2Config(**GROUPED),
    PhiConfig(**SHAPE),
    StableLmConfig(**GROUPED),
]


@pytest.mark.parametrize("config", OTHERS, ids=lambda config: config.model_type)
def test_other_architectures_are_told_apart(config):
    assert lean_llama(make(config), packed=True) is None


def test_what_must_not_be_passed_over_is_not(monkeypatch):
    model = make(LIKE_LLAMA[0])
    assert lean_llama(model, packed=True) is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert lean_llama(model, packed=True) is None
    with monkeypatch.context() as patched:
        patched.setattr(module, "MOST_PACKED", 1000)
        assert lean_llama(model, packed=True) is None, "no memory for the weights once more"
        assert lean_llama(model, packed=False) is not None, "which it does not take"
    assert lean_llama(model.train(), packed=False) is None, "dropout would be left out"
    model.eval()
    assert lean_llama(model, packed=True) is not None
    model(input_ids=torch.tensor([[1, 2, 3]]), output_hidden_states=True)
    assert lean_llama(model, packed=True) is not None, "transformers' own hooks want nothing here"
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: None)
    assert lean_llama(model, packed=True) is None, "a hook would not be called"


def test_it_is_made_of_the_weights_as_they_are():
    model = make(LIKE_LLAMA[0])
    first, _ = both(model)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.neg_()
    ours, own = both(model)
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, first, atol=1e-2)
