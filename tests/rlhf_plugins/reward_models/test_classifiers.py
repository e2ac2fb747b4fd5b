"""Rewards that are Hugging Face sequence classifiers: finished ones, and TRL's trainer."""

import numpy as np
import pytest
import torch
from texts_kit import comparisons, job, scores
from transformers import BertConfig, BertForSequenceClassification, pipeline

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Message, Prompt, Sample
from rlhf_plugins.reward_models._trl import classifier_of
from rlhf_plugins.reward_models.sequence_classifier import SequenceClassifier
from rlhf_plugins.reward_models.trl_reward import TrlReward

TEXTS = ["good plan for the river", "storm", "", "a much longer answer about the town council vote " * 3]


@pytest.fixture(scope="module")
def toxic(policy, tmp_path_factory):
    """A tiny BERT that tells three labels apart."""
    folder = tmp_path_factory.mktemp("toxic")
    torch.manual_seed(0)
    labels = {0: "fine", 1: "toxic", 2: "spam"}
    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label=labels, label2id={name: i for i, name in labels.items()}, pad_token_id=0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    policy.lm.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def reward(policy, tmp_path_factory):
    """A tiny decoder with one output."""
    folder = tmp_path_factory.mktemp("reward")
    classifier_of(policy.lm, seed=3).save_pretrained(folder)
    policy.lm.tokenizer.save_pretrained(folder)
    return str(folder)


def test_keep_the_contract(toxic, reward, policy, rlhf_conformance):
    rlhf_conformance(SequenceClassifier, model=toxic, label="toxic")
    rlhf_conformance(SequenceClassifier, model=reward)
    rlhf_conformance(TrlReward, policy=lambda: policy)


def test_labels_equal_the_librarys_own_pipeline(toxic):
    found = scores(SequenceClassifier(model=toxic, label="toxic", reads_as="answer", unwanted=True), *TEXTS[:2])
    theirs = pipeline("text-classification", model=toxic, top_k=None)(TEXTS[:2])
    for i, row in enumerate(theirs):
        share = {entry["label"]: entry["score"] for entry in row}
        assert {name: values[i] for name, values in found.criteria.items()} == pytest.approx(share, abs=1e-5)
        assert found.mean[i] == pytest.approx(-np.log(share["toxic"] / (1 - share["toxic"])), abs=1e-4)


def test_one_output_is_the_score(reward):
    plain = scores(SequenceClassifier(model=reward), *TEXTS).mean
    scaled = scores(SequenceClassifier(model=reward, offset=1.0, scale=2.0, unwanted=True), *TEXTS).mean
    assert scaled == pytest.approx([(-value - 1) / 2 for value in plain])
    assert len(set(plain)) == len(TEXTS)


def test_the_chat_template_is_used(reward, policy, tmp_path):
    import shutil

    shutil.copytree(reward, tmp_path, dirs_exist_ok=True)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    model = SequenceClassifier(model=str(tmp_path))
    prompt = Prompt(messages=(Message(role="system", content="Be brief."), Message(role="user", content="Hi")))
    assert model.score([prompt], [Sample(prompt_id=prompt.id, text="Hello")]).mean
    rows, _ = model._encode(tokenizer, [prompt], ["Hello"])
    assert tokenizer.decode(rows[0]).strip() == "system: Be brief.\nuser: Hi\nassistant: Hello"


def test_wrong_labels_and_models_are_named(toxic, reward):
    with pytest.raises(DataError, match="no label `rude`") as error:
        scores(SequenceClassifier(model=toxic, label="rude"), "x")
    assert "fine, toxic, spam" in error.value.remedy
    with pytest.raises(DataError, match="no `label` is named"):
        scores(SequenceClassifier(model=toxic), "x")
    with pytest.raises(DataError, match="cannot load the classifier"):
        scores(SequenceClassifier(model="./no/such/folder"), "x")
    with pytest.raises(DataError, match="no chat template"):
        scores(SequenceClassifier(model=reward, reads_as="chat"), "x")


def test_trl_learns_what_is_preferred(policy, tmp_path, capsys):
    model = TrlReward(epochs=4, batch=16, lr=1e-2)
    logged = []
    model.run.log = lambda metrics, step: logged.append(metrics)
    metrics = model.fit(job(policy, comparisons))
    assert metrics["reward_accuracy"].value > 0.9
    assert metrics["reward_train_pairs"].value == 120
    assert any("loss" in entry for entry in logged)
    assert capsys.readouterr().out == ""
    found = scores(model, "good plan for river", "plan for river").mean
    assert found[0] > found[1]
    model.save(tmp_path)
    again = TrlReward()
    again.load(tmp_path)
    assert scores(again, *TEXTS).mean == pytest.approx(scores(model, *TEXTS).mean, abs=1e-5)
    assert not list(tmp_path.glob("*.bin"))
    # What it saves is a reward model like any other of the hub.
    assert len(scores(SequenceClassifier(model=str(tmp_path), reads_as="answer"), *TEXTS).mean) == len(TEXTS)


def test_trl_has_nothing_to_learn_from_ties(policy):
    def ties(n, seed):
        for answer in comparisons(n, seed):
            yield answer.model_copy(update={"feedback": answer.feedback.model_copy(update={"choice": "tie"})})

    with pytest.raises(TrainingError, match="none of them decided"):
        TrlReward().fit(job(policy, ties, train=9))
    with pytest.raises(TrainingError, match="no language-model policy"):
        TrlReward().fit(job(None, comparisons, train=9))
    assert FeedbackSet.of(ties(3, 1)).pairs()
