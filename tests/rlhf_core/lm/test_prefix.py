import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.lm.attention import can_share
from rlhf_core.lm.forward import forward
from rlhf_core.lm.logprobs import answer_logits_by_prefix, sequence_logprobs, token_logprobs
from rlhf_core.lm.prefix import distinct_rows
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line on Monday")]


def batch(lm, repeats=3, answer=6):
    """Each prompt with several answers of different lengths, padded on both sides."""
    ids, mask = lm.encode([prompt for prompt in PROMPTS for _ in range(repeats)])
    random = torch.Generator().manual_seed(0)
    answers = torch.randint(3, 200, (len(ids), answer), generator=random)
    own = torch.arange(answer) < torch.randint(1, answer + 1, (len(ids), 1), generator=random)
    return torch.cat([ids, answers], 1), torch.cat([mask, own.long()], 1), ids.shape[1], own


def plainly(lm, ids, mask, start):
    logits = forward(lm.model, ids, mask).logits[:, start - 1 : -1]
    return token_logprobs(logits, ids[:, start:])


def test_equal_rows_are_found():
    ids = torch.tensor([[0, 5], [0, 5], [1, 5], [0, 5], [0, 5]])
    mask = torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1], [0, 1]])
    firsts, index = distinct_rows(ids, mask)
    assert firsts == [0, 2, 3]
    assert index.tolist() == [0, 0, 1, 2, 0]


@pytest.mark.parametrize("answer", [1, 2, 6])
def test_sharing_changes_neither_log_probabilities_nor_gradients(lm, answer):
    ids, mask, start, own = batch(lm, answer=answer)
    gradients = []
    for compute in (plainly, lambda *arguments: sequence_logprobs(arguments[0].model, *arguments[1:])[0]):
        lm.model.zero_grad()
        logprobs = compute(lm, ids, mask, start)
        weights = torch.linspace(-1, 1, own.numel()).reshape(own.shape)
        torch.where(own, logprobs * weights, 0.0).sum().backward()
        gradients.append((logprobs.detach(), {n: p.grad.clone() for n, p in lm.model.named_parameters()}))
    torch.testing.assert_close(gradients[1][0][own], gradients[0][0][own], rtol=1e-4, atol=1e-5)
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradients[1][1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_each_prompt_is_computed_once_and_padding_never(lm):
    ids, mask, start, _ = batch(lm)
    assert can_share(lm.model)
    sizes = []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape)))
    sequence_logprobs(lm.model, ids, mask, start)
    prompts = mask[:: len(mask) // 2, :start].sum()
    assert sizes == [(1, prompts + mask[:, start + 1 :].sum())]


def test_each_prompt_is_computed_once_where_attention_is_the_models_own(lm, monkeypatch):
    ids, mask, start, own = batch(lm)
    packed = sequence_logprobs(lm.model, ids, mask, start)[0]
    monkeypatch.setattr("rlhf_core.lm.logprobs.can_share", lambda model: False)
    sizes = []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape)))
    shared = sequence_logprobs(lm.model, ids, mask, start)[0]
    assert sizes == [(2, start), (6, ids.shape[1] - start - 1)]
    torch.testing.assert_close(shared[own], packed[own], rtol=1e-4, atol=1e-5)


def test_few_repetitions_are_computed_plainly(lm):
    ids, mask, start, _ = batch(lm, repeats=1)
    assert answer_logits_by_prefix(lm.model, ids, mask, start) is None


def test_architectures_that_keep_something_else_are_computed_plainly():
    from transformers import AutoModelForCausalLM, Gemma2Config

    lm = make_tiny()
    ids, mask, start, own = batch(lm)
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma2Config(**shape, num_key_value_heads=1, intermediate_size=64, head_dim=16, sliding_window=4)
    lm.model = AutoModelForCausalLM.from_config(config).eval()
    assert answer_logits_by_prefix(lm.model, ids, mask, start) is None
    found = sequence_logprobs(lm.model, ids, mask, start)[0].detach()
    torch.testing.assert_close(found[own], plainly(lm, ids, mask, start).detach()[own], rtol=1e-4, atol=1e-5)
