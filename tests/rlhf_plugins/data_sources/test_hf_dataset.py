"""`hf_dataset` on files and folders that the test writes; nothing is fetched."""

import json

import pytest

from rlhf_core.errors import DataError
from rlhf_core.plugins.registry import files_digest
from rlhf_core.records import Comparison, Rating
from rlhf_plugins.data_sources.hf_dataset import HfDataset
from rlhf_plugins.data_sources.table import Table


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def judged(answer):
    texts = [sample.text for sample in answer.question.samples]
    return tuple(texts if answer.feedback.choice == "first" else reversed(texts))


HH = [
    {
        "chosen": f"\n\nHuman: Hi {i}\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Good {i}.",
        "rejected": f"\n\nHuman: Hi {i}\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Bad {i}.",
    }
    for i in range(4)
]


@pytest.mark.parametrize("format", ["auto", "hh"])
@pytest.mark.parametrize("streaming", [False, True])
def test_hh_dialogues(tmp_path, format, streaming):
    path = lines(tmp_path / "hh.jsonl", HH)
    source = HfDataset(path=path, format=format, streaming=streaming, demonstrations="chosen")
    answers = list(source.feedback())
    assert [judged(answer) for answer in answers] == [(f"Good {i}.", f"Bad {i}.") for i in range(4)]
    assert [(m.role, m.content) for m in answers[0].question.prompt.messages] == [
        ("user", "Hi 0"), ("assistant", "Yes?"), ("user", "Why?"),
    ]  # fmt: skip
    assert [d.feedback.text for d in source.demonstrations()] == [f"Good {i}." for i in range(4)]
    assert HfDataset.yields(source.config) == {Comparison}
    table = Table(path=path, columns={"chosen": "chosen", "rejected": "rejected"})
    assert list(table.feedback()) == answers, "both sources say the same about the same file"


def test_a_malformed_dialogue_is_a_broken_row(tmp_path):
    rows = [HH[0], {"chosen": HH[1]["chosen"], "rejected": "Bad."}, HH[2]]
    path = lines(tmp_path / "hh.jsonl", rows)
    with pytest.raises(DataError, match="row 2: `rejected` is not a dialogue"):
        list(HfDataset(path=path, format="hh").feedback())
    assert len(list(HfDataset(path=path, format="hh", broken_rows="skip").feedback())) == 2


USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in zip(("user", "assistant", "assistant"), "ugb", strict=True)
)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "u", "chosen": "g", "rejected": "b"}, "u"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "user: u"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user: u"),
        ({"prompt": "u", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user: u"),
        ({"prompt": "\n\nHuman: u\n\nAssistant:", "chosen": " g", "rejected": " b"}, "user: u"),
    ],
)
def test_trl_preferences(tmp_path, row, asked):
    (answer,) = HfDataset(path=lines(tmp_path / "p.jsonl", [row])).feedback()
    assert answer.question.prompt.content == asked
    assert judged(answer) == ("g", "b")


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "u", "completion": "g"}, "u"),
        ({"prompt": [USER], "completion": [GOOD]}, "user: u"),
        ({"messages": [USER, GOOD]}, "user: u"),
    ],
)
def test_trl_demonstrations(tmp_path, row, asked):
    source = HfDataset(path=lines(tmp_path / "p.jsonl", [row]), format="trl")
    (demonstration,) = source.demonstrations()
    assert (demonstration.question.prompt.content, demonstration.feedback.text) == (asked, "g")
    assert list(source.feedback()) == []


def test_prompts_only(tmp_path):
    source = HfDataset(path=lines(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}]))
    assert [prompt.text for prompt in source.prompts()] == ["a", "b"]


def test_columns_win_over_guesses(tmp_path):
    rows = [{"prompt": "u", "title": "t", "grade": 4}]
    columns = {"prompt": "prompt", "text": "title", "score": "grade"}
    source = HfDataset(path=lines(tmp_path / "p.jsonl", rows), columns=columns)
    (answer,) = source.feedback()
    assert HfDataset.yields(source.config) == {Rating}
    assert (answer.feedback.score, answer.feedback.annotator) == (4, "p")


def test_folder_of_splits(tmp_path):
    lines(tmp_path / "set" / "train.jsonl", HH[:3])
    lines(tmp_path / "set" / "test.jsonl", HH[3:])
    path = str(tmp_path / "set")
    counts = {
        split: len(list(HfDataset(path=path, split=split).feedback())) for split in ("train", "test", "train[:2]")
    }
    assert counts == {"train": 3, "test": 1, "train[:2]": 2}
    with pytest.raises(DataError, match="holdout"):
        list(HfDataset(path=path, split="holdout").feedback())


@pytest.mark.parametrize("several", [False, True])
def test_saved_to_disk(tmp_path, several):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(HH)
    (DatasetDict({"test": data}) if several else data).save_to_disk(str(tmp_path / "saved"))
    source = HfDataset(path=str(tmp_path / "saved"), split="test" if several else "train")
    assert len(list(source.feedback())) == 4


def test_what_is_missing_is_said(tmp_path):
    path = lines(tmp_path / "p.jsonl", [{"question": "u", "good": "g", "bad": "b"}])
    with pytest.raises(DataError, match="question, good, bad") as error:
        list(HfDataset(path=path).feedback())
    assert "columns:" in error.value.remedy
    with pytest.raises(DataError, match="no column `goood`") as error:
        list(HfDataset(path=path, columns={"chosen": "goood", "rejected": "bad"}).feedback())
    assert "Did you mean `good`?" in error.value.remedy
    with pytest.raises(DataError, match="no such file") as error:
        list(HfDataset(path=str(tmp_path / "q.jsonl")).feedback())
    assert "p.jsonl" in error.value.remedy


def test_a_damaged_file_is_one_error(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "u"}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read") as error:
        list(HfDataset(path=str(path)).prompts())
    assert "use: table" in error.value.remedy


def digest(**options):
    return files_digest(*HfDataset.reads(HfDataset.Config(**options)))


def test_digest_of_local_files_only(tmp_path):
    path = tmp_path / "set" / "train.jsonl"
    lines(path, HH)
    before = digest(path=str(tmp_path / "set"))
    lines(path, HH[1:])
    assert len(before) == 64
    assert digest(path=str(tmp_path / "set")) != before
    assert digest(path="some/name") == ""
