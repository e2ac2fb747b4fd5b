import json

import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.errors import DataError
from rlhf_core.lm.dtypes import choose_dtype
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.lm.rollout import rollout
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the tram"), Prompt(text="the senate approved the tram line")]


def greedy(lm, prompts=PROMPTS):
    ids, mask = lm.encode(prompts)
    return rollout(
        lm.model, ids, mask, max_new_tokens=8, eos_id=lm.eos_id, pad_id=lm.pad_id, seeds=[0] * len(prompts), top_k=1
    ).tokens.tolist()


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    make_tiny().save(folder)
    return folder


def test_encode_pads_on_the_left(lm):
    ids, mask = lm.encode(PROMPTS)
    short, long = lm.format.prompt_tokens(PROMPTS)
    gap = len(long) - len(short)
    assert ids.tolist() == [[lm.pad_id] * gap + short, long]
    assert mask.tolist() == [[0] * gap + [1] * len(short), [1] * len(long)]
    assert ids.dtype == mask.dtype == torch.int64


def test_encode_pairs_marks_the_answer_and_its_eos(lm):
    ids, mask, answer = lm.encode_pairs(PROMPTS, ["yes", "no, never"])
    prompts, answers = lm.format.prompt_tokens(PROMPTS), lm.format.answer_tokens(["yes", "no, never"], PROMPTS)
    for row in range(2):
        length = len(prompts[row]) + len(answers[row])
        assert ids[row, :length].tolist() == prompts[row] + answers[row]
        assert mask[row].sum() == length
        assert mask[row, :length].all(), "padding stands on the right"
        assert ids[row][answer[row]].tolist() == answers[row]
        assert answers[row][-1] == lm.eos_id


def test_long_answers_are_cut_without_eos(lm):
    (tokens,) = lm.answer_tokens(["word " * 100], PROMPTS[:1])
    assert len(tokens) == lm.max_new_tokens
    assert lm.eos_id not in tokens


def test_save_and_load_keep_every_bit(lm, tmp_path):
    lm.save(tmp_path / "a")
    loaded = LanguageModel.load(tmp_path / "a")
    assert weights_digest(loaded) == weights_digest(lm)
    assert (loaded.max_prompt_tokens, loaded.max_new_tokens) == (lm.max_prompt_tokens, lm.max_new_tokens)
    assert greedy(loaded) == greedy(lm)
    assert not loaded.model.training
    loaded.save(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_saved_folder_is_a_plain_hugging_face_model(lm, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert weights_digest(model) == weights_digest(lm)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("tram") == lm.tokenizer.encode("tram")


def test_from_pretrained_takes_a_folder(base):
    lm = LanguageModel.from_pretrained(base, max_prompt_tokens=16, max_new_tokens=8)
    assert weights_digest(lm) == weights_digest(make_tiny())
    assert lm.base["name"] == str(base)


def test_digest_sees_one_bit(lm):
    before = weights_digest(lm)
    with torch.no_grad():
        next(lm.model.parameters()).view(torch.int32).view(-1)[3] ^= 1
    assert weights_digest(lm) != before


def test_missing_models_say_what_to_do(tmp_path, monkeypatch):
    limits = {"max_prompt_tokens": 8, "max_new_tokens": 8}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        LanguageModel.from_pretrained("nobody/no-such-model", **limits)
    assert "nobody/no-such-model" in str(error.value)
    assert "starter" in str(error.value)
    with pytest.raises(DataError, match=r"config\.json"):
        LanguageModel.from_pretrained(tmp_path, **limits)
    with pytest.raises(DataError, match="from_pretrained"):
        LanguageModel.load(tmp_path)


def test_pickled_weights_are_not_read(base):
    from safetensors.torch import load_file

    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(DataError, match="safetensors"):
        LanguageModel.from_pretrained(base, max_prompt_tokens=8, max_new_tokens=8)


def test_code_of_strangers_is_not_run(base):
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(DataError, match="trust_remote_code: true"):
        LanguageModel.from_pretrained(base, max_prompt_tokens=8, max_new_tokens=8)


def test_more_tokens_than_the_model_can_see_are_refused(base):
    with pytest.raises(DataError, match="at most 72"):
        LanguageModel.from_pretrained(base, max_prompt_tokens=70, max_new_tokens=70)


def test_dtype_has_a_reason():
    dtype, reason = choose_dtype()
    assert dtype in (torch.float32, torch.bfloat16)
    assert reason.startswith("bf16:" if dtype == torch.bfloat16 else "fp32:")


def test_bfloat16_is_computed_in_and_not_stored(base):
    lm = LanguageModel.from_pretrained(base, max_prompt_tokens=8, max_new_tokens=8, dtype="bfloat16")
    assert next(lm.model.parameters()).dtype == torch.float32
    ids, _ = lm.encode(PROMPTS[:1])
    with lm.autocast():
        assert lm.model(ids).logits.dtype == torch.bfloat16
    assert lm.model(ids).logits.dtype == torch.float32


class TestLora:
    def load(self, base, **options):
        return LanguageModel.from_pretrained(
            base, max_prompt_tokens=16, max_new_tokens=8, lora=Lora(r=4, **options), dtype="float32"
        )

    def train(self, lm):
        ids, mask = lm.encode(PROMPTS)
        optimizer = torch.optim.SGD([p for p in lm.model.parameters() if p.requires_grad], lr=5.0)
        for _ in range(3):
            loss = lm.model(input_ids=ids, attention_mask=mask, labels=ids).loss
            loss.backward()
            optimizer.step()

    def test_fresh_adapters_change_nothing_and_are_the_same_each_time(self, base):
        lm = self.load(base)
        assert greedy(lm) == greedy(make_tiny())
        assert weights_digest(lm) == weights_digest(self.load(base))
        trainable = {name for name, parameter in lm.model.named_parameters() if parameter.requires_grad}
        assert trainable
        assert all(".lora_" in name for name in trainable)

    def test_only_adapters_are_saved_and_they_come_back(self, base, tmp_path):
        lm = self.load(base)
        self.train(lm)
        lm.save(tmp_path / "saved")
        assert not (tmp_path / "saved" / "model.safetensors").exists()
        loaded = LanguageModel.load(tmp_path / "saved")
        assert weights_digest(loaded) == weights_digest(lm)
        assert greedy(loaded) == greedy(lm) != greedy(make_tiny())
        assert any(parameter.requires_grad for parameter in loaded.model.parameters())

    def test_named_layers(self, base):
        lm = self.load(base, target_modules=("q_proj",))
        adapted = {
            name.split(".lora_")[0].rpartition(".")[2] for name, _ in lm.model.named_parameters() if ".lora_" in name
        }
        assert adapted == {"q_proj"}

    def test_unknown_layers_are_answered_with_the_known_ones(self, base):
        with pytest.raises(DataError, match="q_proj"):
            self.load(base, target_modules=("query",))

    def test_a_moved_base_is_an_error_that_names_it(self, base, tmp_path):
        self.load(base).save(tmp_path / "saved")
        base.rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="base"):
            LanguageModel.load(tmp_path / "saved")
