"""`rlhf export`: what is in the store, as files that our own readers understand."""

import json

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from rlhf_core.feedback.export import EXPORTS
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_flows.cli import cli
from rlhf_flows.cli.export import FORMATS


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / ".rlhf"
    with FeedbackStore(f"sqlite:///{folder}/feedback.db") as store:
        for number in range(3):
            prompt = Prompt(text=f"p{number}")
            question = Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in "ab"))
            for who in ("ann", "ben"):
                store.add([Answer(question=question, feedback=question.compare([1, 0], annotator=who))])
    return folder


def export(workspace, *arguments):
    return CliRunner().invoke(cli, ["export", *map(str, arguments), "--workspace", str(workspace)])


def test_every_format_is_offered():
    assert set(FORMATS) == {"parquet", *EXPORTS}


@pytest.mark.parametrize(("form", "rows"), [("jsonl", 6), ("trl", 3), ("hh", 3), ("label_studio", 3), ("argilla", 3)])
def test_text_formats(workspace, tmp_path, form, rows):
    file = tmp_path / "out"
    done = export(workspace, form, file)
    assert done.exit_code == 0, done.output
    text = file.read_text("utf-8")
    assert len(json.loads(text) if text.startswith("[") else text.splitlines()) == rows


def test_parquet_and_one_annotator(workspace, tmp_path):
    assert export(workspace, "parquet", tmp_path / "a.parquet", "--annotator", "ann").exit_code == 0
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["annotator"].to_pylist() == ["ann"] * 3


def test_a_place_that_cannot_be_written(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    done = export(workspace, "jsonl", tmp_path / "file" / "out.jsonl")
    assert done.exit_code != 0
    assert "cannot be written" in str(done.output) + str(done.exception)
