"""Exports of other people's Label Studio projects and Argilla datasets."""

import json

import pytest

from rlhf_core.errors import DataError
from rlhf_core.run import Run
from rlhf_plugins.data_sources.argilla import ArgillaExport
from rlhf_plugins.data_sources.label_studio import LabelStudioExport

PAIRWISE = [
    {
        "id": 1,
        "data": {"question": "q?", "text1": "left one", "text2": "right one"},
        "annotations": [
            {
                "id": 5, "completed_by": {"id": 3, "email": "a@b.c"}, "updated_at": "2026-01-02T03:04:05Z",
                "result": [{"from_name": "pw", "to_name": "pw", "type": "pairwise", "value": {"selected": "right"}}],
            },
            {"id": 6, "completed_by": 4, "was_cancelled": True, "result": []},
        ],
    },
]  # fmt: skip
RECORDS = [
    {
        "id": "r1",
        "fields": {"chat": [{"role": "user", "content": "q?"}], "response1": "one", "response2": "two"},
        "metadata": {},
        "suggestions": {},
        "responses": {
            "preference": [{"value": "response2", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}],
            "own_answer": [{"value": "Three.", "user_id": "u1"}],
        },
        "vectors": {},
        "status": "completed",
    },
]
THEIRS = {
    LabelStudioExport: {
        "prompt": "question", "samples": ("text1", "text2"), "names": {"pw": "better"},
    },
    ArgillaExport: {
        "prompt": "chat", "samples": ("response1", "response2"),
        "names": {"preference": "better", "own_answer": "edited"},
        "choices": {"response1": "A is better", "response2": "B is better", "tie": "both are equally good"},
    },
}  # fmt: skip


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def reading(tmp_path, plugin, items, **options):
    path = tmp_path / "export.json"
    path.write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")
    return plugin(plugin.Config(path=path, **{**THEIRS[plugin], **options}), run=Notes())


def test_a_pairwise_project_of_label_studio(tmp_path):
    (answer,) = reading(tmp_path, LabelStudioExport, PAIRWISE).feedback()
    assert answer.question.prompt.text == "q?"
    assert [sample.text for sample in answer.question.samples] == ["left one", "right one"]
    said = answer.feedback
    assert (said.choice, said.annotator, said.given_at) == ("second", "a@b.c", "2026-01-02T03:04:05.000000+00:00")


def test_a_preference_dataset_of_argilla(tmp_path):
    source = reading(tmp_path, ArgillaExport, RECORDS)
    found = {each.feedback.annotator: each.feedback for each in source.feedback()}
    assert {who: said.choice for who, said in found.items()} == {"argilla u1": "second", "argilla u2": "tie"}
    (own,) = source.demonstrations()
    assert own.feedback.text == "Three."
    assert own.question.prompt.messages[0].content == "q?"


@pytest.mark.parametrize(
    ("plugin", "items", "what"),
    [
        (LabelStudioExport, "{", "no JSON file"),
        (LabelStudioExport, "{}", "a list of items is expected"),
        (LabelStudioExport, [{"annotations": []}, 7], "2 answers or items cannot be read"),
        (LabelStudioExport, [{**PAIRWISE[0], "data": {"question": "q", "text1": "a", "text2": "a"}}], "the same text"),
        (LabelStudioExport, [{**PAIRWISE[0], "data": {"question": " ", "text1": "a", "text2": "b"}}], "empty prompt"),
        (ArgillaExport, [{**RECORDS[0], "responses": {"preference": [{"value": "x", "user_id": "u"}]}}], "argilla u"),
        (ArgillaExport, [{**RECORDS[0], "responses": {"preference": 5}}], "item 1: TypeError"),
        (ArgillaExport, [{"id": "x"}], "item 1: KeyError: 'fields'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, plugin, items, what):
    with pytest.raises(DataError) as error:
        list(reading(tmp_path, plugin, items).feedback())
    assert what in str(error.value)
    assert error.value.where.endswith("export.json")


def test_broken_items_can_be_left_out(tmp_path):
    source = reading(tmp_path, LabelStudioExport, [7, *PAIRWISE], broken="skip")
    assert len(list(source.feedback())) == 1
    assert "1 answers or items left out" in source.run.notes[0]


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(ArgillaExport(path=tmp_path / "export.jsn").prompts())


@pytest.mark.parametrize(("plugin", "items"), [(LabelStudioExport, PAIRWISE), (ArgillaExport, RECORDS)])
def test_they_keep_the_contract(tmp_path, plugin, items, rlhf_conformance):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(items))
    rlhf_conformance(plugin, path=str(path), **THEIRS[plugin])
