"""What holds for a folder only."""

import errno
import os
import subprocess
import sys

import pytest
from artifact_samples import FILES, content, publish

from rlhf_core.errors import WorkspaceError
from rlhf_flows.artifact_store import ArtifactStore, Ref, local

PUBLISH = """
import sys
from pathlib import Path
from rlhf_flows.artifact_store import ArtifactStore
store = ArtifactStore(sys.argv[1], Path(sys.argv[2]))
refs = []
for number in range(20):
    with store.draft("x") as draft:
        (draft / "file").write_bytes(b"x" * 100_000 + b"%d" % number)
        refs.append(store.publish("data", draft))
print(" ".join(str(store.path(ref)) for ref in refs))
"""


def test_several_processes_publish_the_same(tmp_path):
    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "artifacts"), str(tmp_path / "scratch")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
    assert len(list((tmp_path / "artifacts" / "data").iterdir())) == 2 * 20


def test_an_artifact_of_before_there_were_manifests_is_absent(tmp_path):
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "scratch")
    old = tmp_path / "artifacts" / "policy" / ("0" * 64)
    old.mkdir(parents=True)
    (old / "model.bin").write_bytes(b"old")
    assert Ref(kind="policy", uri=f"policy/{'0' * 64}", sha256="0" * 64) not in store


def test_drafts_may_lie_on_another_disk(tmp_path, monkeypatch):
    rename = type(tmp_path).replace

    def across(self, target):
        if "scratch" in self.parts and "artifacts" in target.parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", across)
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "scratch")
    ref = publish(store, FILES)
    assert content(store.path(ref)) == FILES
    assert list((tmp_path / "artifacts" / ".moving").iterdir()) == []


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")])
def test_a_disk_that_refuses_is_one_paragraph(tmp_path, monkeypatch, number, said):
    def refuses(*_):
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr(local, "sync_tree", refuses)
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "scratch")
    with pytest.raises(WorkspaceError, match=said) as caught:
        publish(store, FILES)
    assert caught.value.where == str(tmp_path)
    assert caught.value.remedy


def test_a_root_that_is_a_file_is_one_paragraph(tmp_path):
    (tmp_path / "artifacts").write_text("")
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "scratch")
    with pytest.raises(WorkspaceError, match="cannot be read or written"):
        store.check()
