import pytest
import torch

from rlhf_core.errors import DataError
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.lm.model import weights_digest
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line")]


@pytest.fixture
def head(lm):
    torch.manual_seed(0)
    head = ScalarHead.from_language_model(lm).eval()
    torch.nn.init.normal_(head.head.weight)
    return head


def test_it_starts_without_preferences(lm):
    ids, mask = lm.encode(PROMPTS)
    assert ScalarHead.from_language_model(lm)(ids, mask).abs().sum() == 0


def test_padding_on_either_side_gives_the_same_values(lm, head):
    left, left_mask = lm.encode(PROMPTS)
    right, right_mask, _ = lm.encode_pairs(PROMPTS, ["yes", "no"])
    alone = [head(torch.tensor([tokens]), torch.ones(1, len(tokens))) for tokens in lm.format.prompt_tokens(PROMPTS)]
    for row, values in enumerate(alone):
        torch.testing.assert_close(head(left, left_mask)[row][left_mask[row].bool()], values[0])
        torch.testing.assert_close(head(right, right_mask)[row, : values.shape[1]], values[0])
    last = head.last_token_values(left, left_mask)
    torch.testing.assert_close(last, torch.stack([values[0, -1] for values in alone]))
    values = head(right, right_mask)
    ends = right_mask.sum(1) - 1
    torch.testing.assert_close(head.last_token_values(right, right_mask), values[torch.arange(2), ends])


def test_the_language_model_stays_as_it_is(lm, head):
    before = weights_digest(lm)
    ids, mask = lm.encode(PROMPTS)
    head(ids, mask).sum().backward()
    torch.optim.SGD(head.parameters(), lr=1.0).step()
    assert weights_digest(lm) == before
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    assert not any("lm_head" in name for name, _ in head.named_parameters())


def test_save_and_load_keep_every_bit(lm, head, tmp_path):
    head.save(tmp_path)
    loaded = ScalarHead.load(tmp_path)
    assert weights_digest(loaded) == weights_digest(head)
    ids, mask = lm.encode(PROMPTS)
    assert loaded(ids, mask).tolist() == head(ids, mask).tolist()
    assert not loaded.training


def test_nothing_saved_is_said(tmp_path):
    with pytest.raises(DataError, match="no saved scalar model"):
        ScalarHead.load(tmp_path)


def test_adapters_are_merged_in(lm, tmp_path):
    from rlhf_core.lm.lora import Lora, add_adapters

    lm.model = add_adapters(lm.model, Lora(r=2))
    torch.manual_seed(0)
    for name, parameter in lm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    head = ScalarHead.from_language_model(lm)
    assert not [name for name, _ in head.named_parameters() if "lora" in name]
    assert all(parameter.requires_grad for parameter in head.parameters())
    ids, mask = lm.encode(PROMPTS)
    ours = head.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    theirs = lm.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=1e-4, rtol=1e-4)
