import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.lm.decoding import MOST_TOGETHER, ROOM, CachedDecoder, Grid, SharingDecoder, decoding
from rlhf_core.lm.forward import forward
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line on Monday"), Prompt(text="a")]


@torch.inference_mode()
def answers(lm, prompts, lengths, *, kind, lean=True):
    """Logits of each row at each step, by given tokens, rows leaving after `lengths` steps; and by a plain pass."""
    ids, mask = lm.encode(prompts)
    steps = max(lengths)
    given = torch.randint(3, 200, (len(ids), steps), generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(len(ids), steps, 320)
    with decoding(lm.model, ids, mask, steps) as decoder:
        assert isinstance(decoder, kind)
        assert kind is CachedDecoder or (decoder.lean is not None) == lean
        alive, logits = torch.arange(len(ids)), decoder.begin()
        for step in range(steps):
            seen[alive, step] = logits
            left = (torch.tensor(lengths)[alive] > step + 1).nonzero().squeeze(1)
            if not len(left):
                break
            if len(left) < len(alive):
                alive = alive[left]
                decoder.keep(left)
            logits = decoder.step(given[alive, step])
    whole = forward(lm.model, torch.cat([ids, given], 1), torch.cat([mask, torch.ones_like(given)], 1)).logits
    return seen, whole[:, ids.shape[1] - 1 : -1]


GROUPS = {
    "one prompt each": [0, 1, 2],
    "three answers each": [0, 0, 0, 1, 1, 1],
    "uneven, not side by side": [0, 1, 0, 2, 1, 0, 0],
    "more than attend together": [0] * (MOST_TOGETHER + 1) + [1],
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
def test_each_step_is_what_a_plain_pass_computes_whoever_leaves(groups):
    lm = make_tiny(max_new_tokens=40, max_prompt_tokens=48)
    generator = torch.Generator().manual_seed(1)
    # Longer than the room that is made at once, and ends spread over the whole length.
    lengths = torch.randint(1, ROOM + 9, (len(groups),), generator=generator).tolist()
    lengths[0], lengths[-1] = 1, ROOM + 8
    found, plain = answers(lm, [PROMPTS[i] for i in groups], lengths, kind=SharingDecoder)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], plain[row, :length], atol=1e-4, rtol=1e-4)


def test_grouped_queries_and_biases_too():
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    lm = make_tiny()
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    lm.model = AutoModelForCausalLM.from_config(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2))
    lm.model.eval()
    found, plain = answers(lm, [PROMPTS[i] for i in (0, 0, 1, 1)], [6, 3, 6, 5], kind=SharingDecoder)
    for row, length in enumerate([6, 3, 6, 5]):
        torch.testing.assert_close(found[row, :length], plain[row, :length], atol=1e-4, rtol=1e-4)


def test_a_model_with_more_to_it_runs_its_own_code(lm):
    from peft import LoraConfig, get_peft_model

    lm.model = get_peft_model(lm.model, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    lm.model.eval()
    found, plain = answers(lm, [PROMPTS[i] for i in (0, 0, 1, 1)], [6, 3, 6, 5], kind=SharingDecoder, lean=False)
    for row, length in enumerate([6, 3, 6, 5]):
        torch.testing.assert_close(found[row, :length], plain[row, :length], atol=1e-4, rtol=1e-4)


def test_an_architecture_with_positions_of_its_own_goes_through_transformers_caches():
    from transformers import AutoModelForCausalLM, BloomConfig

    torch.manual_seed(0)
    lm = make_tiny()
    config = BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2)
    lm.model = AutoModelForCausalLM.from_config(config).eval()
    found, plain = answers(lm, [PROMPTS[i] for i in (0, 1, 1)], [5, 5, 2], kind=CachedDecoder)
    torch.testing.assert_close(found[:2], plain[:2], atol=1e-4, rtol=1e-4)


def test_the_models_own_attention_is_back_afterwards(lm):
    ids, mask = lm.encode(PROMPTS)
    before, name = lm.model(input_ids=ids, attention_mask=mask).logits, lm.model.config._attn_implementation
    with pytest.raises(KeyError), decoding(lm.model, ids, mask, 4):
        raise KeyError
    assert lm.model.config._attn_implementation == name
    assert torch.equal(lm.model(input_ids=ids, attention_mask=mask).logits, before)


def test_a_grid_by_hand():
    grid = Grid.of(torch.tensor([0, 1, 0, 1, 1]))
    assert grid.each == 3
    assert grid.places.tolist() == [0, 3, 1, 4, 5]
    rows = torch.tensor([10, 20, 30, 40, 50])
    assert grid.laid(rows)[1].tolist() == [20, 40, 50]
    assert grid.taken(grid.laid(rows).flatten()).tolist() == rows.tolist()
    smaller, before = grid.kept(torch.tensor([2, 4])).pressed()
    assert (smaller.each, smaller.places.tolist(), before.tolist()) == (1, [0, 1], [1, 5])
