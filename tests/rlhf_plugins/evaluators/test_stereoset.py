import json
import math

import pytest
from benchmark_kit import Speaker, bos, job, plain_logprob, tokens
from click.testing import CliRunner

from rlhf_core.errors import DataError, RlhfError
from rlhf_flows.cli import cli
from rlhf_plugins.evaluators._stereoset import read_items
from rlhf_plugins.evaluators.rouge import Rouge
from rlhf_plugins.evaluators.stereoset import StereoSet


def item(number, target, domain, texts, context="They are BLANK"):
    labels = ("stereotype", "anti-stereotype", "unrelated")
    sentences = [
        {"id": f"{number}{label[0]}", "sentence": text, "gold_label": label}
        for label, text in zip(labels, texts, strict=True)
    ]
    return {"id": str(number), "target": target, "bias_type": domain, "context": context, "sentences": sentences}


def write(tmp_path, **tasks):
    path = tmp_path / "gold.json"
    path.write_text(json.dumps({"version": "x", "data": tasks}))
    return path


def predictions(tmp_path, **scores):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"intrasentence": [{"id": name, "score": score} for name, score in scores.items()]}))
    return path


TEXTS = ["a storm came", "a plan came", "river river closed the"]


@pytest.fixture
def gold(tmp_path):
    return write(
        tmp_path,
        intrasentence=[item(1, "mayor", "job", TEXTS), item(2, "mayor", "job", TEXTS), item(3, "storm", "sky", TEXTS)],
        intersentence=[],
    )


def test_scores_by_hand(gold, tmp_path):
    # mayor: item 1 stereotype first, both above the unrelated; item 2 a tie (anti), and the unrelated above both.
    # storm: anti first, stereotype below the unrelated.
    found = StereoSet(data=str(gold)).score_predictions(
        predictions(
            tmp_path,
            **{"1s": 0.9, "1a": 0.8, "1u": 0.1, "2s": 0.5, "2a": 0.5, "2u": 0.6, "3s": 0.1, "3a": 0.7, "3u": 0.2},
        )
    )
    assert found.metrics["stereoset_lms"].value == pytest.approx((100 * 2 / 4 + 100 * 1 / 2) / 2)
    assert found.metrics["stereoset_ss"].value == pytest.approx((50 + 0) / 2)
    assert found.metrics["stereoset_icat"].value == pytest.approx(50 * 25 / 50)
    rows = {row["domain"]: row for row in found.tables["stereoset"] if row["task"] == "intrasentence"}
    assert rows["job"]["ss"] == 50 and rows["sky"]["ss"] == 0 and rows["overall"]["items"] == 3


def test_broken_files_are_named(gold, tmp_path):
    with pytest.raises(DataError, match="no score of the sentence 1s"):
        StereoSet(data=str(gold)).score_predictions(predictions(tmp_path, **{"1a": 0.8, "1u": 0.1}))
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="not StereoSet's file"):
        read_items(tmp_path / "other.json")
    with pytest.raises(DataError, match="not StereoSet predictions"):
        StereoSet(data=str(gold)).score_predictions(tmp_path / "other.json")
    (tmp_path / "gold.json").write_text("{")
    with pytest.raises(DataError, match="as JSON"):
        read_items(gold)
    with pytest.raises(RlhfError, match="policies only"):
        Rouge().score_predictions(gold)


def test_a_policy_is_scored_by_its_likelihoods(speaker, tmp_path):
    lm = speaker.lm
    texts = {
        "intrasentence": ["the town council voted", "the school closed over", "bridge bridge bridge"],
        "intersentence": ["the school closed", "a plan for the old bridge", "town town"],
    }
    context = "a storm came over the river."
    path = write(tmp_path, **{task: [item(task, "town", "place", given, context)] for task, given in texts.items()})
    means = {}
    for text in texts["intrasentence"]:
        ids = tokens(lm, text)
        means[text] = plain_logprob(lm, bos(lm), ids) / len(ids)
    start = lm.format.prompt_tokens([_prompt(context)])[0]
    for text in texts["intersentence"]:
        ids = tokens(lm, lm.format.joint(_prompt(context)) + text)
        means[text] = plain_logprob(lm, start, ids) / len(ids)
    related = [(means[given[0]] > means[given[2]]) + (means[given[1]] > means[given[2]]) for given in texts.values()]
    wins = [means[given[0]] > means[given[1]] for given in texts.values()]
    found = StereoSet(data=str(path)).evaluate(job(speaker)).metrics
    assert found["stereoset_lms"].value == pytest.approx(100 * sum(related) / 4)
    assert found["stereoset_ss"].value == pytest.approx(100 * sum(wins) / 2)
    assert all(math.isfinite(metric.low) for metric in found.values())


def _prompt(text):
    from rlhf_core.records import Prompt

    return Prompt(text=text)


def test_keeps_the_contract(gold, speaker, rlhf_conformance):
    rlhf_conformance(StereoSet, policy=lambda: Speaker(speaker.lm), data=str(gold))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["bert-base-cased_BertNextSentence_BertLM.json", "gpt2_ModelNSP_GPT2LM.json"])
def test_equals_the_authors_program(real, name):
    folder = real("stereoset")
    gold = folder / "dev_race_religion_intrasentence.json"
    arguments = ["evaluate", "stereoset", "--predictions", folder / "predictions" / name, "--gold", gold, "--json"]
    done = CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)
    assert done.exception is None, done.output
    expected = json.loads((folder / "reference_scores.json").read_text())[name]
    rows = {row["domain"]: row for row in json.loads(done.output)["tables"]["stereoset"] if row["task"] == "overall"}
    for domain, scores in expected.items():
        ours = [rows[domain][key] for key in ("lms", "ss", "icat")]
        theirs = [scores[key] for key in ("LM Score", "SS Score", "ICAT Score")]
        assert [round(value, 4) for value in ours] == pytest.approx(theirs, abs=1e-9)
