import math

import pytest
import torch
from scipy.stats import chisquare
from tiny_lm import make_tiny

from rlhf_core.lm.lean_llama import LeanLlama
from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.rollout import keep_top_k, keep_top_p, rollout, sample_tokens, uniform_table
from rlhf_core.records import Prompt

PROMPTS = [
    Prompt(text=text) for text in ("the tram", "the senate approved the tram line on Monday", "标题：市政府", "a")
]
NEVER = -1


def roll(lm, prompts, seeds, **options):
    ids, mask = lm.encode(prompts)
    settings = {"max_new_tokens": 20, "eos_id": NEVER, "pad_id": lm.pad_id, "seeds": seeds} | options
    return rollout(lm.model, ids, mask, **settings)


def recomputed(lm, rollouts, temperature=1.0):
    ids = torch.cat([rollouts.prompt_ids, rollouts.tokens], 1)
    mask = torch.cat([rollouts.prompt_mask, rollouts.mask.long()], 1)
    return sequence_logprobs(lm.model, ids, mask, rollouts.prompt_ids.shape[1], temperature)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_that_training_computes(lm, temperature):
    rollouts = roll(lm, PROMPTS, [1, 2, 3, 4], temperature=temperature)
    again = recomputed(lm, rollouts, temperature)
    torch.testing.assert_close(rollouts.logprobs, again.detach(), atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_its_company(lm):
    together = roll(lm, PROMPTS, [1, 2, 3, 4])
    for i, prompt in enumerate(PROMPTS):
        alone = roll(lm, [prompt], [i + 1])
        assert alone.tokens[0].tolist() == together.tokens[i].tolist()
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[i], atol=1e-5, rtol=1e-5)


def test_equal_seeds_repeat_and_other_seeds_differ(lm):
    rollouts = roll(lm, [PROMPTS[0]] * 3, [5, 5, 6])
    assert rollouts.tokens[0].tolist() == rollouts.tokens[1].tolist()
    assert rollouts.tokens[0].tolist() != rollouts.tokens[2].tolist()


def test_greedy_equals_generate(lm):
    ids, mask = lm.encode(PROMPTS)
    ours = rollout(
        lm.model, ids, mask, max_new_tokens=12, eos_id=lm.eos_id, pad_id=lm.pad_id, seeds=[0] * len(PROMPTS), top_k=1
    )
    theirs = lm.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=lm.pad_id
    )[:, ids.shape[1] :]
    assert ours.tokens.tolist() == theirs[:, : ours.tokens.shape[1]].tolist()
    assert ours.logprobs.abs().max() == 0, "one token is left to choose from"


def test_rows_end_at_eos_and_leave_the_batch(lm, monkeypatch):
    free = roll(lm, PROMPTS, [1, 2, 3, 4])
    eos = int(free.tokens[1, 6])
    sizes = []
    original = LeanLlama.__call__

    def spy(lean, ids, *arguments):
        sizes.append(len(ids))
        return original(lean, ids, *arguments)

    monkeypatch.setattr(LeanLlama, "__call__", spy)
    ended = roll(lm, PROMPTS, [1, 2, 3, 4], eos_id=eos)
    lengths = []
    for i, row in enumerate(free.tokens.tolist()):
        length = row.index(eos) + 1 if eos in row else len(row)
        lengths.append(length)
        assert ended.tokens[i].tolist() == (row[:length] + [lm.pad_id] * len(row))[: ended.tokens.shape[1]]
        assert ended.mask[i].sum() == length
        assert ended.mask[i, :length].all()
        assert bool(ended.finished[i]) == (eos in row)
        assert ended.logprobs[i, length:].abs().sum() == 0
    assert min(lengths) < max(lengths), "the rows must end at different steps for this test to say anything"
    # One call reads all prompts in one row, then one a step with the rows that go on.
    assert sizes == [1] + [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    torch.testing.assert_close(ended.logprobs[ended.mask], free.logprobs[:, : ended.mask.shape[1]][ended.mask])


def test_answers_are_no_longer_than_the_longest(lm):
    free = roll(lm, [PROMPTS[0]], [1])
    eos = int(free.tokens[0, 2])
    assert roll(lm, [PROMPTS[0]], [1], eos_id=eos).tokens.shape[1] <= 3


def test_equal_prompts_fill_the_cache_once(lm):
    sizes = []
    lm.model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, output: sizes.append(tuple(inputs[0].shape))
    )
    repeated = roll(lm, [PROMPTS[1]] * 3 + [PROMPTS[0]] * 2, [1, 2, 3, 4, 5], max_new_tokens=3)
    lengths = [len(row) for row in lm.format.prompt_tokens(PROMPTS[:2])]
    assert sizes[-3] == (1, sum(lengths))
    assert sizes[-2:] == [(5, 1), (5, 1)]
    torch.testing.assert_close(repeated.logprobs, recomputed(lm, repeated).detach(), atol=1e-5, rtol=1e-5)


def test_common_left_padding_is_trimmed(lm):
    ids, mask = lm.encode(PROMPTS[:2])
    pad = torch.full((2, 7), lm.pad_id)
    wide = rollout(
        lm.model,
        torch.cat([pad, ids], 1),
        torch.cat([torch.zeros_like(pad), mask], 1),
        max_new_tokens=5,
        eos_id=NEVER,
        pad_id=lm.pad_id,
        seeds=[1, 2],
    )
    assert wide.prompt_ids.tolist() == ids.tolist()
    assert wide.tokens.tolist() == roll(lm, PROMPTS[:2], [1, 2], max_new_tokens=5).tokens.tolist()


def test_eos_waits_for_min_new_tokens(lm):
    free = roll(lm, [PROMPTS[0]], [1])
    eos = int(free.tokens[0, 0])
    held = roll(lm, [PROMPTS[0]], [1], eos_id=eos, min_new_tokens=4)
    assert eos not in held.tokens[0, :4].tolist()
    assert held.mask.sum() >= 4


def test_stop_strings_end_an_answer(lm):
    lm.max_new_tokens = 24
    free = lm.rollout(PROMPTS, seeds=[1, 2, 3, 4])
    texts = lm.format.tokenizer.batch_decode(free.tokens)
    stop = texts[0][4:6]
    assert len(stop) == 2
    ended = lm.rollout(PROMPTS, seeds=[1, 2, 3, 4], stop=[stop, "never said"])
    for i, text in enumerate(texts):
        said = lm.format.tokenizer.batch_decode([ended.tokens[i][ended.mask[i]]])[0]
        assert text.startswith(said)
        assert said.count(stop) == (1 if stop in text else 0)
        assert bool(ended.finished[i]) == (stop in text or bool(free.finished[i]))
    assert ended.mask[0].sum() < free.mask[0].sum()
    assert lm.decode(ended.tokens, stop=[stop])[0] == texts[0][: texts[0].find(stop)].strip()
    torch.testing.assert_close(ended.logprobs[ended.mask], free.logprobs[:, : ended.mask.shape[1]][ended.mask])


def test_a_stop_string_over_several_tokens(lm):
    tokens = lm.answer_tokens(["市政府批准"], [PROMPTS[0]])[0][:-1]
    ended = lm.format.ends_with(["府批"])
    rows = torch.tensor([tokens])
    found = [ended(rows[:, :n])[0] for n in range(1, len(tokens) + 1)]
    assert found.index(True) > 0
    text = lm.decode([tokens[: found.index(True) + 1]])[0]
    assert "府批" in text
    assert "府批" not in lm.decode([tokens[: found.index(True)]])[0]


def test_rollouts_may_enter_a_training_graph(lm):
    rollouts = roll(lm, PROMPTS, [1, 2, 3, 4])
    (recomputed(lm, rollouts) * rollouts.logprobs * rollouts.mask).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in lm.model.parameters())


def test_wrong_arguments_are_refused(lm):
    with pytest.raises(ValueError, match="temperature"):
        roll(lm, PROMPTS, [1, 2, 3, 4], temperature=0.0)
    with pytest.raises(ValueError, match="3 seeds for 4 prompts"):
        roll(lm, PROMPTS, [1, 2, 3])


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -torch.inf]).expand(20_000, 5)
    tokens, logprobs = sample_tokens(logits, uniform_table([3], 20_000)[0], temperature=0.8)
    probabilities = (torch.tensor([0.0, 1.0, 2.0, -1.0]).double() / 0.8).softmax(0)
    counts = torch.bincount(tokens, minlength=5)
    assert counts[4] == 0
    assert chisquare(counts[:4].numpy(), (probabilities * 20_000).numpy()).pvalue > 0.001
    torch.testing.assert_close(logprobs, probabilities.log()[tokens].float(), atol=1e-5, rtol=1e-5)


def test_inverse_of_a_hand_computed_distribution():
    logits = torch.tensor([0.25, 0.5, 0.25]).log().expand(5, 3)
    tokens, _ = sample_tokens(logits, torch.tensor([0.0, 0.2, 0.3, 0.7, 0.8], dtype=torch.float64))
    assert tokens.tolist() == [0, 0, 1, 1, 2]


def test_filters_by_hand():
    scores = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    kept = torch.isfinite(keep_top_k(scores, 2))
    assert kept.tolist() == [[True, True, False, False]], "of equal ones the first stays"
    assert torch.isfinite(keep_top_p(scores, 0.5)).tolist() == [[True, False, False, False]]
    assert torch.isfinite(keep_top_p(scores, 0.6)).tolist() == [[True, True, False, False]]
    tokens, logprobs = sample_tokens(scores, torch.tensor([0.9], dtype=torch.float64), top_p=0.6)
    assert tokens.tolist() == [1]
    assert logprobs.item() == pytest.approx(math.log(0.2 / 0.7), abs=1e-6), "renormalised over what is left"
    tokens, _ = sample_tokens(scores.clone(), torch.tensor([0.0], dtype=torch.float64), forbidden=0)
    assert tokens.tolist() == [1]


def test_uniform_numbers_are_a_function_of_the_rows_seed():
    table = uniform_table([1, 2, 1], 4)
    assert table[0].tolist() == table[2].tolist() != table[1].tolist()
    assert uniform_table([2], 9)[0, :4].tolist() == table[1].tolist()


def architectures():
    from transformers import BloomConfig, Gemma2Config, GPT2Config, Qwen3Config

    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    grouped = {"num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 16}
    yield GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2)
    yield Qwen3Config(**shape, **grouped)
    # A window shorter than the answers, and logits that are capped after the head.
    yield Gemma2Config(**shape, **grouped, sliding_window=8, final_logit_softcapping=5.0)
    yield BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2)


@pytest.mark.parametrize("config", architectures(), ids=lambda config: config.model_type)
def test_other_architectures_keep_their_logprobs_too(config):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lm = make_tiny()
    lm.model = AutoModelForCausalLM.from_config(config).eval()
    free = roll(lm, [*PROMPTS, PROMPTS[0]], [1, 2, 3, 4, 5])
    rollouts = roll(lm, [*PROMPTS, PROMPTS[0]], [1, 2, 3, 4, 5], eos_id=int(free.tokens[1, 3]))
    assert rollouts.finished.any()
    again = recomputed(lm, rollouts).detach()
    torch.testing.assert_close(rollouts.logprobs[rollouts.mask], again[rollouts.mask], atol=1e-4, rtol=1e-4)
