"""A replaced file is the old one or the new one, never a half."""

from pathlib import Path

import pytest

from rlhf_core.files import replaced, sync_tree


def test_the_draft_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("long content", "short"):
        with replaced(path) as draft:
            draft.write_text(content)
            assert not path.exists() or path.read_text() != content
        assert path.read_text() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replaced(path) as draft:
        draft.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_draft_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "file"):
        pass


def test_every_file_of_a_tree_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr("os.fsync", flushed.append)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).write_text(name)
    sync_tree(tmp_path)
    assert len(flushed) == 3
