"""What a workspace refuses, and in which words."""

import errno
import json
import multiprocessing
import os

import pytest

from rlhf_core.errors import RlhfError, WorkspaceError
from rlhf_flows.workspace import Workspace, full_disk_explained, write_atomically


def test_another_layout_version_is_refused(tmp_path):
    Workspace.open(tmp_path)
    (tmp_path / "workspace.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(WorkspaceError, match="layout version 99; this program reads version 1"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"formal": 1}', "\0"])
def test_an_unreadable_marker_is_refused(tmp_path, content):
    (tmp_path / "workspace.json").write_text(content)
    with pytest.raises(WorkspaceError, match="not readable"):
        Workspace.open(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        Workspace.open(tmp_path / "file")


def _hold(folder, held, release):
    with Workspace.open(folder).held("a test"):
        held.set()
        release.wait(30)


def test_the_second_run_is_told_who_holds_the_workspace(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, release))
    holder.start()
    try:
        assert held.wait(60)
        with pytest.raises(WorkspaceError, match=f"process {holder.pid} on "), Workspace.open(tmp_path).held("me"):
            pass
    finally:
        release.set()
        holder.join()
    with Workspace.open(tmp_path).held("me"):
        assert json.loads((tmp_path / "run.json").read_text())["pid"] == os.getpid()


def test_a_full_disk_says_what_is_safe(tmp_path):
    with pytest.raises(RlhfError, match="Nothing that was accepted is lost"), full_disk_explained(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_another_error_of_the_system_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, "long content")
    write_atomically(path, "short")
    assert path.read_text() == "short"
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]
