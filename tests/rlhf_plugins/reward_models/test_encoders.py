"""Reward models that start from an encoder, as BERT is one, instead of a causal language model."""

import pytest
import torch
from test_regression import ratings
from texts_kit import QUICK, WORDS, comparisons, job, scores

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_plugins.reward_models.pairwise import Pairwise
from rlhf_plugins.reward_models.regression import Regression

SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
PADDED = {"max_prompt_tokens": 40, "max_answer_tokens": 20}


def words_tokenizer(most):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: place for place, word in enumerate([*special.values(), "good", "headline", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=most, **special)


def folder_of(kind, tmp_path):
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DistilBertConfig,
        DistilBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    torch.manual_seed(3)
    if kind == "bert":
        model = BertForMaskedLM(BertConfig(**SHAPE, intermediate_size=64, max_position_embeddings=64))
    elif kind == "roberta":  # its positions begin behind that of the padding
        model = RobertaForMaskedLM(RobertaConfig(**SHAPE, intermediate_size=64, max_position_embeddings=66))
    else:
        model = DistilBertForMaskedLM(
            DistilBertConfig(vocab_size=64, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
        )
    model.save_pretrained(tmp_path / kind)
    words_tokenizer(64).save_pretrained(tmp_path / kind)
    return str(tmp_path / kind)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_ratings_are_learnt_by_an_encoder(policy, tmp_path, kind):
    model = Regression(model=folder_of(kind, tmp_path), **{**QUICK, "lr": 3e-3, "epochs": 8}, **PADDED)
    metrics = model.fit(job(policy, ratings))
    assert metrics["reward_spearman"].value > 0.85
    found = scores(model, "plan for river", "good plan for river", "good plan for good river").mean
    assert found == sorted(found)
    alone = [scores(model, text).mean[0] for text in ("plan", "good plan for the river and the town and the park")]
    assert scores(model, "plan", "good plan for the river and the town and the park").mean == pytest.approx(
        alone, rel=1e-5
    )
    model.save(tmp_path / "saved")
    again = Regression()
    again.load(tmp_path / "saved")
    assert scores(again, "good plan", "storm") == scores(model, "good plan", "storm")


def test_what_is_fitted_is_the_same_each_time_and_no_value_model(policy, tmp_path):
    # The checkpoint has no pooler, which the library would add with weights drawn by lot.
    folder, digests = folder_of("bert", tmp_path), set()
    for lot in (1, 2):
        torch.manual_seed(lot)
        model = Pairwise(model=folder, epochs=1, **PADDED)
        assert model.fit(job(policy, comparisons, train=40, validation=20))["reward_accuracy"].n == 20
        digests.add(weights_digest(model.scalar))
    assert len(digests) == 1
    assert model.value_start(policy) is None


def test_what_it_cannot_see_is_said(policy, tmp_path):
    with pytest.raises(TrainingError, match="together more than the 64 tokens"):
        Regression(model=folder_of("roberta", tmp_path), max_prompt_tokens=50, max_answer_tokens=15).fit(
            job(policy, ratings, train=9)
        )
