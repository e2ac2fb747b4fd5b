import math

import pytest
import torch

from rlhf_core.lm import logprobs as module
from rlhf_core.lm.forward import forward, positions
from rlhf_core.lm.logprobs import sequence_logprobs, token_logprobs, token_logprobs_and_entropy
from rlhf_core.records import Prompt


def test_hand_computed_probabilities():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    tokens = torch.tensor([0, 1])
    assert token_logprobs(logits, tokens).tolist() == pytest.approx([math.log(1 / 4), math.log(3 / 4)], abs=1e-6)
    halved = token_logprobs(logits, tokens, temperature=0.5)
    assert halved.tolist() == pytest.approx([math.log(1 / 10), math.log(9 / 10)], abs=1e-6)


def test_hand_computed_entropy():
    logits = torch.tensor([[5.0, 5.0, 5.0, 5.0], [100.0, 0.0, 0.0, 0.0]])
    _, entropy = token_logprobs_and_entropy(logits, torch.tensor([0, 0]))
    assert entropy.tolist() == pytest.approx([math.log(4), 0.0], abs=1e-5)


@pytest.mark.parametrize("use", ["logprobs", "entropy", "both"])
def test_gradients_equal_autograd_through_log_softmax(use):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7, requires_grad=True)
    tokens = torch.randint(7, (3, 5))
    weights = torch.randn(3, 5)

    def total(picked, entropy):
        parts = {"logprobs": (picked * weights).sum(), "entropy": (entropy * weights).sum()}
        return sum(parts.values()) if use == "both" else parts[use]

    (ours,) = torch.autograd.grad(total(*token_logprobs_and_entropy(logits, tokens, 0.7)), logits)
    log_p = (logits / 0.7).log_softmax(-1)
    plain = log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(log_p.exp() * log_p).sum(-1)
    (expected,) = torch.autograd.grad(total(*plain), logits)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_positions_count_real_tokens_on_either_side():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def test_left_padding_changes_nothing(lm):
    ids, mask = lm.encode([Prompt(text="the senate approved the tram")])
    answer = torch.tensor([[7, 8, 9, 10]])
    whole, seen = torch.cat([ids, answer], 1), torch.cat([mask, torch.ones_like(answer)], 1)
    bare, _ = sequence_logprobs(lm.model, whole, seen, ids.shape[1])
    pad = torch.full((1, 5), lm.pad_id)
    padded, _ = sequence_logprobs(
        lm.model, torch.cat([pad, whole], 1), torch.cat([torch.zeros_like(pad), seen], 1), ids.shape[1] + 5
    )
    torch.testing.assert_close(padded, bare, atol=1e-5, rtol=1e-5)


def test_agrees_with_the_loss_transformers_computes(lm):
    ids, mask = lm.encode([Prompt(text="the senate approved the tram line on Monday")])
    labels = ids.clone()
    labels[:, :4] = -100
    loss = lm.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    logprobs, _ = sequence_logprobs(lm.model, ids, mask, 4)
    assert -logprobs.mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_temperature_divides_the_logits(lm):
    ids, mask = lm.encode([Prompt(text="the senate approved the tram line")])
    logits = forward(lm.model, ids, mask).logits[:, 1:-1] / 0.5
    expected = torch.distributions.Categorical(logits=logits)
    logprobs, entropy = sequence_logprobs(lm.model, ids, mask, 2, temperature=0.5)
    torch.testing.assert_close(logprobs, expected.log_prob(ids[:, 2:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected.entropy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("start", [0, 6, 7])
def test_an_answer_without_a_prompt_or_without_tokens_is_refused(lm, start):
    ids = torch.zeros(1, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="answer must start"):
        sequence_logprobs(lm.model, ids, torch.ones_like(ids), start)


def test_training_takes_the_lean_pass_and_gets_the_models_own_gradients(lm, monkeypatch):
    ids, mask = lm.encode([Prompt(text="the tram line"), Prompt(text="the tram line"), Prompt(text="Senate")])
    start = ids.shape[1]
    answers = torch.tensor([[5, 9, 7, 2], [8, 2, 0, 0], [6, 4, 2, 0]])
    ids, mask = torch.cat([ids, answers], dim=1), torch.cat([mask, (answers > 0).long()], dim=1)
    asked, lean_llama = [], module.lean_llama
    monkeypatch.setattr(module, "lean_llama", lambda model, **options: asked.append(1) or lean_llama(model, **options))

    def found():
        logprobs, entropy, states = module.sequence_logprobs_and_states(lm.model, ids, mask, start, states=True)
        lm.model.zero_grad()
        ((logprobs - 0.1 * entropy) * (answers > 0)).sum().backward()
        slopes = [weight.grad.clone() for weight in lm.model.parameters()]
        return [logprobs.detach(), entropy.detach(), states.detach(), *slopes]

    ours = found()
    assert asked
    monkeypatch.setattr(module, "lean_llama", lambda model, **options: None)
    own = found()
    shown = answers > 0
    for our, theirs in zip(ours[:3], own[:3], strict=True):
        torch.testing.assert_close(our[shown], theirs[shown], atol=1e-5, rtol=1e-4)
    for our, theirs in zip(ours[3:], own[3:], strict=True):
        torch.testing.assert_close(our, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-3)
