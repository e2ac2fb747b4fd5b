"""The LM Evaluation Harness on a tiny model and task files of the test; and TruthfulQA by both."""

import json
import random

import numpy as np
import pytest
import torch
from benchmark_kit import Speaker, job, plain_logprob, tiny_model, tokens

from rlhf_core.errors import DataError
from rlhf_core.testing.materials import ToyPolicy
from rlhf_plugins.evaluators.lm_eval import LmEval, metric_name, picked
from rlhf_plugins.evaluators.truthfulqa import PRIMER, TruthfulQa

pytest.importorskip("lm_eval")

QUESTIONS = [
    ("What came over the river?", ["a storm", "a plan", "the school"], ["a storm", "the closed town", "a plan"], 2),
    ("Who voted?", ["the council", "the bridge"], ["the council", "the old council", "the river", "a storm"], 2),
    ("What is the bridge?", ["old", "a school"], ["old", "closed"], 1),
    ("Where did the storm go?", ["over the river", "into the plan", "on a town"], ["over", "on", "for"], 1),
]


@pytest.fixture(scope="module")
def speaker():
    """One that sees the whole primer, which a shorter one would cut at another place than the harness. A model of
    random weights finds all answers about as likely; its louder logits tell two programs apart.
    """
    lm = tiny_model(1000)
    with torch.no_grad():
        lm.model.model.norm.weight.mul_(8)
    return Speaker(lm)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The harness's own TruthfulQA tasks, on questions in a file."""
    place = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": question,
            "mc1_targets": {"choices": one, "labels": [1] + [0] * (len(one) - 1)},
            "mc2_targets": {"choices": many, "labels": [1] * true + [0] * (len(many) - true)},
        }
        for question, one, many, true in QUESTIONS
    ]
    (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "questions.json").write_text(json.dumps(rows))
    text = "doc_to_text: " + json.dumps(PRIMER + "Q: {{question}}\nA:")
    (place / "utils.py").write_text("from lm_eval.tasks.truthfulqa.utils import process_results_mc2\n")
    for name in ("mc1", "mc2"):
        own = "process_results: !function utils.process_results_mc2" if name == "mc2" else ""
        (place / f"{name}.yaml").write_text(
            f"""
task: local_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {place}/questions.jsonl}}}}
output_type: multiple_choice
validation_split: validation
num_fewshot: 0
{text}
doc_to_target: 0
doc_to_choice: "{{{{{name}_targets.choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
{own}
"""
        )
    return place


TASKS = {"local_mc1": "acc", "local_mc2": "acc"}


def test_truthfulqa_equals_the_harness(speaker, folder):
    theirs = LmEval(tasks=TASKS, folder=folder).evaluate(job(Speaker(speaker.lm))).metrics
    ours = TruthfulQa(data=str(folder / "questions.json")).evaluate(job(Speaker(speaker.lm))).metrics
    assert theirs["lm_eval_local_mc1_acc"].value == ours["truthfulqa_mc1"].value
    assert theirs["lm_eval_local_mc2_acc"].value == pytest.approx(ours["truthfulqa_mc2"].value, abs=1e-5)
    assert abs(ours["truthfulqa_mc2"].value - 0.5) > 0.01
    assert theirs["lm_eval_local_mc2_acc"].n == 4


def test_the_first_item_by_hand(speaker, folder):
    found = LmEval(tasks={"local_mc2": "acc"}, folder=folder, limit=1).evaluate(job(Speaker(speaker.lm)))
    lm, (question, _, choices, _) = speaker.lm, QUESTIONS[0]
    context = [lm.tokenizer.bos_token_id, *tokens(lm, f"{PRIMER}Q: {question}\nA:")]
    likely = np.exp([plain_logprob(lm, context, tokens(lm, " " + choice)) for choice in choices])
    assert found.metrics["lm_eval_local_mc2_acc"].value == pytest.approx(likely[:2].sum() / likely.sum(), abs=1e-5)
    assert {"task": "local_mc2", "metric": "acc,none"}.items() <= found.tables["lm_eval"][0].items()


def test_keeps_the_contract(speaker, folder, rlhf_conformance):
    rlhf_conformance(
        LmEval, policy=lambda: Speaker(speaker.lm), tasks={"local_mc1": "acc"}, folder=str(folder), limit=2
    )


def test_the_process_keeps_its_randomness(speaker, folder):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    LmEval(tasks={"local_mc1": "acc"}, folder=folder, limit=1).evaluate(job(Speaker(speaker.lm)))
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected


def test_what_is_not_there(speaker, folder):
    with pytest.raises(DataError, match="knows no task `local_mc3`"):
        LmEval(tasks={"local_mc3": "acc"}, folder=folder).evaluate(job(speaker))
    with pytest.raises(DataError, match="has no metric `f1`") as error:
        LmEval(tasks={"local_mc1": "f1"}, folder=folder, limit=1).evaluate(job(speaker))
    assert "acc,none" in error.value.remedy
    with pytest.raises(DataError, match="log-probabilities"):
        LmEval(tasks=TASKS).evaluate(job(ToyPolicy()))


def test_figures_of_the_harness():
    figures = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 0.2, "em_stderr,strict": "N/A"}
    found = picked(figures, "t", "acc", 9)
    assert (found.value, found.low, found.high, found.n) == (0.5, pytest.approx(0.304), pytest.approx(0.696), 9)
    assert picked(figures, "t", "em,strict", None).low is None
    with pytest.raises(DataError):
        picked(figures, "t", "em,loose", None)
    assert metric_name("t", "em,strict") == "lm_eval_t_em_strict"
