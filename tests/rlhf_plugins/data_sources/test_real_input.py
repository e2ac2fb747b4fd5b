"""The public data sets that users start from, read whole."""

import os
import statistics
from collections import Counter
from pathlib import Path

import pytest

from rlhf_core.errors import DataError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Comparison
from rlhf_core.run import Run
from rlhf_core.splits import split_of
from rlhf_plugins.data_sources.hf_dataset import HfDataset
from rlhf_plugins.data_sources.table import Table

DATA = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
pytestmark = pytest.mark.real_data


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (RLHF_TEST_DATA names the folder of data sets)")
    return path


def test_upworthy_clicks():
    import pandas

    run = Notes()
    table = Table(
        path=real("upworthy/upworthy_clean.parquet"),
        columns={"text": "headline", "clicks": "clicks", "impressions": "impressions", "group": "clickability_test_id"},
        prompt_template="Story: {lede}\nHeadline:",
        field_characters=200,
        strip_html=True,
        broken_rows="skip",
        run=run,
    )
    answers = list(table.feedback())
    frame = pandas.read_parquet(table.config.path)
    frame = frame[frame.lede.fillna("").str.replace(r"<[^>]*>|&nbsp;|\s", "", regex=True) != ""]
    plain = frame.headline.str.replace(r"<[^>]*>", "", regex=True).str.split().str.join(" ")
    headlines = plain.groupby(frame.clickability_test_id).nunique()
    assert len({a.question.prompt.group for a in answers}) == (headlines > 1).sum() == 2598
    assert len(answers) == (headlines * (headlines - 1) // 2).sum()
    assert f"{22_666 - len(frame)} of 22666 rows left out" in run.notes[0]
    choices = Counter(a.feedback.choice for a in answers)
    assert 0.48 < choices["first"] / (choices["first"] + choices["second"]) < 0.52
    assert not any("<p" in a.question.prompt.content for a in answers)
    assert max(len(a.question.prompt.content) for a in answers) <= 200 + len("Story: \nHeadline:")
    sides = {}
    for answer in answers:
        sides.setdefault(answer.question.prompt.group, set()).add(split_of(answer.question.prompt))
    assert all(len(side) == 1 for side in sides.values())


def test_clickbait17_grades():
    path = real("clickbait17/train.json")
    columns = {"text": "post_text", "score": "truth_mean"}
    answers = list(Table(path=path, columns=columns, score_low=0, score_high=1).feedback())
    assert len(answers) == 15_567
    assert statistics.mean(a.feedback.score for a in answers) == pytest.approx(0.323, abs=0.005)
    assert len(FeedbackSet.of(answers).split("test").pairs()) > 1000
    with pytest.raises(DataError, match="outside its scale 1 to 5"):
        list(Table(path=path, columns=columns).feedback())


def test_hh_through_both_sources(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    path = real("hh-rlhf/helpful-base.test.jsonl.gz")
    table = Table(path=path, columns={"chosen": "chosen", "rejected": "rejected"}, broken_rows="skip")
    through_table = list(table.feedback())
    through_hf = list(HfDataset(path=str(path), format="hh", broken_rows="skip").feedback())
    assert len(through_table) == 2348
    assert [a.id for a in through_table] == [a.id for a in through_hf]
    assert all(a.question.prompt.messages[-1].role == "user" for a in through_table)
    with pytest.raises(DataError, match="6 rows cannot be used, 2348 can"):
        list(HfDataset(path=str(path), format="hh").feedback())


def test_chinese_titles():
    table = Table(
        path=real("csl_titles_zh/dev.tsv"),
        header=["task", "abstract", "title"],
        columns={"reference": "title"},
        prompt_template="摘要:{abstract}\n标题:",
        field_characters=100,
    )
    demonstrations = list(table.demonstrations())
    assert len(demonstrations) == 1000
    assert demonstrations[0].feedback.text == "一种基于平方和优化的飞行器大角度机动镇定控制器设计方法"
    assert demonstrations[0].question.prompt.references == (demonstrations[0].feedback.text,)


@pytest.mark.parametrize(("name", "turns"), [("dpo_en_demo", {1, 2, 3, 5}), ("dpo_zh_demo", {1, 2})])
def test_sharegpt_preferences(name, turns, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    path = real(f"llama_factory_demo/{name}.json")
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    answers = list(Table(path=path, columns=columns).feedback())
    assert len(answers) == 300
    assert {a.feedback.kind for a in answers} == {Comparison.model_fields["kind"].default}
    assert turns <= {len(a.question.prompt.messages) for a in answers}
    assert [a.id for a in HfDataset(path=str(path), columns=columns).feedback()] == [a.id for a in answers]


def test_kto_labels():
    path = real("llama_factory_demo/kto_en_demo.json")
    columns = {"messages": "messages", "score": "label"}
    run = Notes()
    table = Table(path=path, columns=columns, score_low=0, score_high=1, broken_rows="skip", run=run)
    scores = Counter(a.feedback.score for a in table.feedback())
    assert scores[0.0] + scores[1.0] >= 299
    assert min(scores.values()) > 50
