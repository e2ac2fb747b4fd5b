"""Local copies of remote artifacts."""

import subprocess
import sys
import uuid

import pytest
from artifact_samples import FILES, content, publish

from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.artifact_store.cache import Cache
from rlhf_flows.artifact_store.manifest import Manifest

HOLD = """
import sys
from pathlib import Path
from rlhf_flows.artifact_store.cache import Cache
from rlhf_flows.artifact_store import Ref
folder, _ = Cache(Path(sys.argv[1]), 0).get(Ref(kind="data", uri="data/" + sys.argv[2], sha256=sys.argv[2]))
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root():
    return f"memory://{uuid.uuid4().hex}"


def copies(store):
    return sorted(path.name.split(".")[0] for path in (store.scratch / "cache").glob("*/*.json"))


def published(root, tmp_path, count):
    """Artifacts of 1000 bytes each, published by a machine of its own."""
    store = ArtifactStore(root, tmp_path / "publisher")
    return [publish(store, {"file": bytes([number]) * 1000}, "data") for number in range(count)]


def test_the_least_recently_used_go(root, tmp_path):
    refs = published(root, tmp_path, 4)
    for ref in refs:  # each by a process of its own, as far as the cache can tell
        folder, limit = tmp_path / "scratch" / "cache", 3000
        draft = tmp_path / ref.short
        draft.mkdir()
        (draft / "file").write_bytes((ArtifactStore(root, tmp_path / "publisher").path(ref) / "file").read_bytes())
        Cache(folder, limit).put(ref, Manifest.of(draft), draft, handed=False)
    store = ArtifactStore(root, tmp_path / "scratch", 3000)
    assert copies(store) == sorted(ref.sha256 for ref in refs[1:])


def test_what_this_process_was_handed_stays(root, tmp_path):
    refs = published(root, tmp_path, 4)
    store = ArtifactStore(root, tmp_path / "scratch", cache_bytes=2000)
    folders = [store.path(ref) for ref in refs]
    assert [content(folder)["file"][:1] for folder in folders] == [b"\0", b"\1", b"\2", b"\3"]


def test_what_another_process_was_handed_stays_as_long_as_it_lives(root, tmp_path):
    refs = published(root, tmp_path, 2)
    maker = ArtifactStore(root, tmp_path / "scratch")
    assert [publish(maker, {"file": bytes([number]) * 1000}, "data") for number in range(2)] == refs
    command = [sys.executable, "-c", HOLD, str(tmp_path / "scratch" / "cache"), refs[0].sha256]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline().strip().endswith(refs[0].uri)
        store = ArtifactStore(root, tmp_path / "scratch", cache_bytes=500)
        publish(store, {"file": b"new"}, "data")
        assert refs[0].sha256 in copies(store)
        assert refs[1].sha256 not in copies(store)
        reader.kill()
    publish(store, {"file": b"newer"}, "data")
    assert refs[0].sha256 not in copies(store)
    assert not list((tmp_path / "scratch" / "cache" / ".users").glob("*.txt"))


def test_the_machine_that_published_does_not_fetch(root, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    store = ArtifactStore(root, tmp_path / "scratch")
    ref = publish(store, FILES)
    monkeypatch.setattr(MemoryFileSystem, "get_file", None)
    assert content(store.path(ref)) == FILES


def test_a_damaged_copy_is_fetched_again(root, tmp_path):
    ref = publish(ArtifactStore(root, tmp_path / "scratch"), FILES)
    copy = tmp_path / "scratch" / "cache" / ref.uri / "metrics.json"
    copy.write_bytes(b'{"reward": 2}')
    folder = ArtifactStore(root, tmp_path / "scratch").path(ref)
    assert content(folder) == FILES


def test_a_copy_that_somebody_removed_is_fetched_again(root, tmp_path):
    import shutil

    store = ArtifactStore(root, tmp_path / "scratch")
    ref = publish(store, FILES)
    store.path(ref)
    shutil.rmtree(tmp_path / "scratch" / "cache")
    assert content(store.path(ref)) == FILES


def test_two_processes_fetch_into_one_cache(root, tmp_path, monkeypatch):
    """Both have it on the way when the first is done."""
    ref = publish(ArtifactStore(root, tmp_path / "publisher"), FILES)
    first, second = (ArtifactStore(root, tmp_path / "scratch") for _ in range(2))
    fetch = type(first._place)._fetch

    def meanwhile(self, *arguments):
        monkeypatch.undo()
        first.path(ref)
        fetch(self, *arguments)

    monkeypatch.setattr(type(first._place), "_fetch", meanwhile)
    assert content(second.path(ref)) == FILES
    assert len(copies(first)) == 1
    assert list((tmp_path / "scratch" / "drafts").iterdir()) == []
