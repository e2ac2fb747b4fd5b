from dataclasses import replace

import torch
from optimizer_kit import PROMPTS

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_plugins.optimizers.text.experience import answers, turn
from rlhf_plugins.optimizers.text.grading import opinion
from rlhf_plugins.optimizers.text.imitation import Shown, demonstrated


def test_every_item_once_a_pass_in_a_new_order():
    items = list(range(10))
    taken = [turn(items, seed=3, stream=0, number=n, size=4) for n in range(5)]
    flat = [item for batch in taken for item in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == items
    assert flat[:10] != flat[10:]
    assert turn(items, seed=3, stream=0, number=2, size=4) == taken[2], "whatever was taken before"
    assert turn(items, seed=4, stream=0, number=0, size=10) != flat[:10]
    assert turn(items, seed=3, stream=1, number=0, size=10) != flat[:10]


def test_a_batch_larger_than_all_items():
    taken = turn("abc", seed=0, stream=0, number=0, size=7)
    assert sorted(taken[:3]) == sorted(taken[3:6]) == ["a", "b", "c"]
    assert len(taken) == 7


def sampled(policy):
    return answers(policy().lm, PROMPTS, seeds=range(len(PROMPTS)), temperature=1.0)


def test_rows_and_pieces_lose_only_padding(policy):
    batch = sampled(policy)
    lm = policy().lm
    whole, _ = opinion(lm, batch, temperature=1.0, size=None, hidden=False)
    pieces = list(batch.pieces(5))
    assert [len(index) for index, _ in pieces] == [5, 5, 2]
    assert sorted(torch.cat([index for index, _ in pieces]).tolist()) == list(range(12))
    for index, part in pieces:
        assert part.attention.any(dim=0).all()
        assert part.ids.shape[1] == part.start + part.mask.shape[1]
        logprobs, _ = sequence_logprobs(lm.model, part.ids, part.attention, part.start)
        width = part.mask.shape[1]
        torch.testing.assert_close(torch.where(part.mask, logprobs, 0.0), whole[index, :width])
        assert not batch.mask[index, width:].any()


def test_the_sampling_engine_agrees_with_a_forward_pass(policy):
    batch = sampled(policy)
    logprobs, _ = opinion(policy().lm, batch, temperature=1.0, size=4, hidden=False)
    torch.testing.assert_close(logprobs, batch.logprobs, rtol=0, atol=1e-5)


def test_hidden_states_stand_before_their_tokens(policy):
    """The token head on them gives the probabilities of exactly those tokens."""
    batch, lm = sampled(policy), policy().lm
    logprobs, hidden = opinion(lm, batch, temperature=1.0, size=5, hidden=True)
    logits = lm.model.get_output_embeddings()(hidden).log_softmax(-1)
    picked = logits.gather(-1, batch.ids[:, batch.start :, None]).squeeze(-1)
    torch.testing.assert_close(torch.where(batch.mask, picked, 0.0), logprobs)


def test_what_stands_in_the_padding_changes_nothing(policy):
    batch, lm = sampled(policy), policy().lm
    dirty = torch.where(batch.attention.bool(), batch.ids, 7)
    assert not torch.equal(dirty, batch.ids)
    clean, _ = opinion(lm, batch, temperature=1.0, size=None, hidden=False)
    again, _ = opinion(lm, replace(batch, ids=dirty), temperature=1.0, size=None, hidden=False)
    assert torch.equal(clean, again)


def test_demonstrations_are_what_the_policy_would_have_sampled(policy):
    lm = policy().lm
    batch = demonstrated(lm, [Shown(PROMPTS[0], "oi", 1.0), Shown(PROMPTS[5], "a very long answer indeed", 1.0)])
    assert lm.decode(batch.ids[:1, batch.start :]) == ["oi"]
    assert batch.mask.sum(dim=1)[1] == lm.max_new_tokens
    last = int(batch.mask[0].sum()) - 1
    assert batch.ids[0, batch.start + last] == lm.eos_id
    prompts, _ = lm.encode([PROMPTS[0], PROMPTS[5]])
    assert torch.equal(batch.ids[:, : batch.start], prompts)
