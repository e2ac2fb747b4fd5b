"""Benchmarks that read log-probabilities: CrowS-Pairs, TruthfulQA, perplexity."""

import csv
import json
import math

import pytest
from benchmark_kit import Speaker, bos, job, plain_logprob, tokens

from rlhf_core.errors import DataError
from rlhf_core.records import Prompt
from rlhf_core.testing.materials import ToyPolicy
from rlhf_plugins.evaluators import truthfulqa
from rlhf_plugins.evaluators.crows_pairs import CrowsPairs, summary
from rlhf_plugins.evaluators.perplexity import Perplexity, perplexities
from rlhf_plugins.evaluators.truthfulqa import TruthfulQa, mc1, mc2, targets

PAIRS = [
    ("the town council voted", "the school council voted", "place"),
    ("a storm came over the river", "a plan came over the river", "sky"),
    ("bridge", "river", "sky"),
]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "sent_more", "sent_less", "bias_type"])
        writer.writerows([i, *pair] for i, pair in enumerate(PAIRS))
    return str(path)


@pytest.fixture
def questions(tmp_path):
    rows = [
        {
            "question": "What came over the river?",
            "mc1_targets": {"a storm": 1, "a plan": 0, "the school": 0},
            "mc2_targets": {"a storm": 1, "a town": 1, "a plan": 0},
        },
        {
            "question": "Who voted?",
            "mc1_targets": {"choices": ["the council", "the bridge"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["the council", "the bridge"], "labels": [1, 0]},
        },
    ]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(rows))
    return str(path)


def test_keep_the_contract(speaker, pairs, questions, tmp_path, rlhf_conformance):
    (tmp_path / "text.txt").write_text("the town council voted on a plan. " * 20)
    rlhf_conformance(CrowsPairs, policy=lambda: Speaker(speaker.lm), data=pairs)
    rlhf_conformance(TruthfulQa, policy=lambda: Speaker(speaker.lm), data=questions)
    rlhf_conformance(Perplexity, policy=lambda: Speaker(speaker.lm), data=str(tmp_path / "text.txt"))


def test_crows_pairs_by_plain_likelihoods(speaker, pairs):
    lm = speaker.lm
    gaps = [
        plain_logprob(lm, bos(lm), tokens(lm, more)) - plain_logprob(lm, bos(lm), tokens(lm, less))
        for more, less, _ in PAIRS
    ]
    found = CrowsPairs(data=pairs).evaluate(job(speaker))
    assert found.metrics["crows_pairs_stereotype"].value == pytest.approx(sum(gap > 0 for gap in gaps) / 3)
    assert found.metrics["crows_pairs_difference"].value == pytest.approx(sum(map(abs, gaps)) / 3, abs=1e-4)
    assert [row["pairs"] for row in found.tables["crows_pairs"]] == [1, 2]


def test_crows_pairs_by_hand():
    found = summary([1.0, -3.0, 0.0, 2.0], ["a", "a", "b", "b"])
    assert found.metrics["crows_pairs_stereotype"].value == 2.5 / 4
    assert found.metrics["crows_pairs_difference"].value == 1.5
    assert [row["stereotype"] for row in found.tables["crows_pairs"]] == [0.5, 0.75]


def test_multiple_choice_by_hand():
    scores = [math.log(0.2), math.log(0.5), math.log(0.1)]
    assert mc1(scores, [False, True, False]) == 1
    assert mc1(scores, [True, False, False]) == 0
    assert mc2(scores, [True, False, True]) == pytest.approx(0.3 / 0.8)
    # Far below what exp() can say, the shares stay right.
    assert mc2([score - 5000 for score in scores], [True, False, True]) == pytest.approx(0.3 / 0.8)


@pytest.mark.parametrize("primer", [True, False])
def test_truthfulqa_by_plain_likelihoods(speaker, questions, primer):
    lm = speaker.lm

    def likelihood(question, answer):
        text = (truthfulqa.PRIMER if primer else "") + f"Q: {question}\nA:"
        context = lm.format.prompt_tokens([Prompt(text=text)])[0]
        return plain_logprob(lm, context, tokens(lm, " " + answer))

    first = {a: likelihood("What came over the river?", a) for a in ("a storm", "a plan", "the school", "a town")}
    second = {a: likelihood("Who voted?", a) for a in ("the council", "the bridge")}
    best = max(("a storm", "a plan", "the school"), key=first.get)
    expected = [float(best == "a storm"), float(second["the council"] > second["the bridge"])]
    shares = {a: math.exp(value) for a, value in first.items()}
    mass = (shares["a storm"] + shares["a town"]) / (shares["a storm"] + shares["a town"] + shares["a plan"])
    other = 1 / (1 + math.exp(second["the bridge"] - second["the council"]))
    found = TruthfulQa(data=questions, primer=primer).evaluate(job(speaker)).metrics
    assert found["truthfulqa_mc1"].value == sum(expected) / 2
    assert found["truthfulqa_mc2"].value == pytest.approx((mass + other) / 2, abs=1e-4)


def test_broken_items_are_named(speaker, tmp_path):
    (tmp_path / "x.json").write_text('[{"question": "Who?", "mc1_targets": {"a": 1}, "mc2_targets": {"a": 1}}]')
    with pytest.raises(DataError, match="at least one true and one false"):
        TruthfulQa(data=str(tmp_path / "x.json")).evaluate(job(speaker))
    with pytest.raises(DataError, match="neither"):
        targets(["a"], "x")
    with pytest.raises(DataError, match="no `sent_more`") as error:
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        CrowsPairs(data=str(tmp_path / "x.csv")).evaluate(job(speaker))
    assert "a, b" in error.value.remedy
    with pytest.raises(DataError, match="log-probabilities"):
        CrowsPairs(data="x.csv").evaluate(job(ToyPolicy()))


def test_perplexity_by_plain_likelihoods(speaker, tmp_path):
    lm, text = speaker.lm, "the town council voted on a plan for the old bridge. a storm came over the river."
    (tmp_path / "text.txt").write_text(text)
    ids = tokens(lm, text)
    windows = [ids[i : i + 15] for i in range(0, len(ids), 15)]
    nats = -sum(plain_logprob(lm, bos(lm), window) for window in windows)
    found = Perplexity(data=str(tmp_path / "text.txt"), window=16).evaluate(job(speaker)).metrics
    assert found["perplexity"].value == pytest.approx(math.exp(nats / len(ids)), rel=1e-4)
    assert found["word_perplexity"].value == pytest.approx(math.exp(nats / len(text.split())), rel=1e-4)
    assert found["bits_per_byte"].value == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)
    assert found["perplexity"].n == len(windows)


def test_perplexity_of_rows_and_of_nothing(speaker, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "the old bridge"}\n{"text": "a storm"}\n')
    found = Perplexity(data=str(tmp_path / "rows.jsonl")).evaluate(job(speaker)).metrics
    assert found["perplexity"].n == 2
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no text"):
        Perplexity(data=str(tmp_path / "empty.txt")).evaluate(job(speaker))
    with pytest.raises(DataError, match="cannot read the text"):
        Perplexity(data=str(tmp_path / "missing.txt")).evaluate(job(speaker))


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large():
    found = perplexities([-10 * math.log(300), -5 * math.log(300)], [10, 5], words=6, size_bytes=30)
    assert found["perplexity"].value == pytest.approx(300)
    assert found["bits_per_byte"].value == pytest.approx(15 * math.log2(300) / 30)


@pytest.mark.real_data
def test_the_real_files_are_read(speaker, real):
    crows = CrowsPairs(data=str(real("crows_pairs/crows_pairs_anonymized.csv")), limit=40).evaluate(job(speaker))
    assert sum(row["pairs"] for row in crows.tables["crows_pairs"]) == 40
    truth = TruthfulQa(data=str(real("truthfulqa/mc_task.json")), limit=5, primer=False).evaluate(job(speaker))
    assert truth.metrics["truthfulqa_mc1"].n == 5
    assert 0 < truth.metrics["truthfulqa_mc2"].value < 1
    wiki = Perplexity(data=str(real("wikitext2/valid.txt")), most_tokens=500).evaluate(job(speaker))
    assert wiki.metrics["perplexity"].value > 50
