"""What holds for a folder and for an object store alike."""

import hashlib
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from artifact_samples import FILES, content, publish

from rlhf_core.errors import WorkspaceError
from rlhf_flows.artifact_store import ArtifactStore, DamagedArtifact, Ref, tree_digest
from rlhf_flows.artifact_store.local import LocalPlace
from rlhf_flows.artifact_store.remote import RemotePlace


def test_another_machine_finds_what_was_published(site):
    ref = publish(site.machine(), FILES)
    other = site.machine("two")
    assert ref in other
    assert content(other.path(ref)) == FILES
    assert other.local is not site.remote
    assert ref.uri == f"policy/{ref.sha256}"
    assert ref.short == ref.sha256[:12]
    assert tree_digest(other.path(ref)) == ref.sha256


def test_a_draft_is_gone_unless_it_was_published(site):
    store = site.machine()
    with store.draft("retrain/ppo round 1") as draft:
        (draft / "half").write_text("x")
    assert not draft.exists()
    ref = publish(store, FILES)
    assert sorted(path.name for path in (store.scratch / "drafts").iterdir()) == []
    assert ref in store


def test_equal_content_is_stored_once(site):
    ref = publish(site.machine(), FILES)
    before = site.objects.names()
    assert publish(site.machine("two"), FILES) == ref
    assert site.objects.names() == before
    assert len(before) == len(FILES) + 1  # the manifest


def test_many_publish_the_same_at_the_same_moment(site):
    with ThreadPoolExecutor(6) as pool:
        refs = set(pool.map(lambda number: publish(site.machine(str(number)), FILES), range(6)))
    assert len(refs) == 1
    assert len(site.objects.names()) == len(FILES) + 1
    assert content(site.machine("reader").path(refs.pop())) == FILES


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_byte_is_found_and_named(site, name):
    ref = publish(site.machine(), FILES)
    found = bytearray(site.objects.read(f"{ref.uri}/{name}"))
    found[-1] ^= 1
    site.objects.write(f"{ref.uri}/{name}", bytes(found))
    with pytest.raises(DamagedArtifact, match=f"policy/{ref.short} is damaged: `{name}` has another content") as caught:
        site.machine("two").path(ref)
    assert (caught.value.ref, caught.value.file) == (ref, name)


def test_a_missing_and_a_shortened_file_are_named(site):
    ref = publish(site.machine(), FILES)
    site.objects.write(f"{ref.uri}/policy/model.bin", b"weigh")
    with pytest.raises(DamagedArtifact, match=r"`policy/model.bin` has 5 bytes instead of 7000"):
        site.machine("two").path(ref)
    site.objects.remove(f"{ref.uri}/metrics.json")
    with pytest.raises(DamagedArtifact, match=r"`metrics.json` is missing"):
        site.machine("two").path(ref)


def test_an_artifact_without_a_manifest_is_absent(site):
    ref = publish(site.machine(), FILES)
    site.objects.remove(ref.manifest)
    assert ref not in site.machine("two")
    with pytest.raises(DamagedArtifact, match=r"manifest\.json` is missing"):
        site.machine("two").path(ref)
    assert publish(site.machine("two"), FILES) == ref
    assert content(site.machine("three").path(ref)) == FILES


def test_a_killed_upload_is_not_taken_for_complete(site, monkeypatch):
    place = RemotePlace if site.remote else LocalPlace
    step = "write" if site.remote else "_move"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, step, killed)
        with pytest.raises(KeyboardInterrupt):
            publish(site.machine(), FILES)
    with site.machine().draft("again") as draft:
        for name, data in FILES.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(data)
        digest = tree_digest(draft)
    ref = Ref(kind="policy", uri=f"policy/{digest}", sha256=digest)
    assert ref not in site.machine()
    assert publish(site.machine(), FILES) == ref
    assert content(site.machine("two").path(ref)) == FILES


def test_a_damaged_artifact_is_replaced_when_it_is_published_again(site):
    ref = publish(site.machine(), FILES)
    site.objects.write(f"{ref.uri}/metrics.json", b"{}")
    assert publish(site.machine("two"), FILES) == ref
    assert content(site.machine("three").path(ref)) == FILES


def test_what_was_discarded_is_published_anew(site):
    store = site.machine()
    ref = publish(store, FILES)
    store.path(ref)
    site.objects.write(f"{ref.uri}/metrics.json", b'{"reward": 2}')
    store.discard(ref)
    assert ref not in store
    assert site.objects.names() == []
    with pytest.raises(DamagedArtifact):
        store.path(ref)
    store.discard(ref)  # another worker was faster
    publish(store, FILES)
    assert content(store.path(ref)) == FILES


def test_content_that_names_itself_keeps_the_first(site):
    digest = hashlib.sha256(b"what counts").hexdigest()
    first = publish(site.machine(), {"rows": b"rows", "times": b"09:00"}, "snapshot", digest)
    second = publish(site.machine("two"), {"rows": b"rows", "times": b"09:30"}, "snapshot", digest)
    assert first == second
    assert first.sha256 == digest
    for name in ("one", "two", "three"):
        assert content(site.machine(name).path(first))["times"] == b"09:00"
    site.machine().discard(first)
    assert site.objects.names() == []


def test_content_that_names_itself_is_whole_also_when_two_publish_different_files(site, monkeypatch):
    """A store without locks: both find nothing there, and both send."""
    digest = hashlib.sha256(b"what counts").hexdigest()
    both = threading.Barrier(2)
    if site.remote:
        seen = RemotePlace._there

        def there(self, ref, manifest):
            found = seen(self, ref, manifest)
            both.wait(10)
            return found

        monkeypatch.setattr(RemotePlace, "_there", there)
    with ThreadPoolExecutor(2) as pool:
        files = [{"rows": b"rows", "times": f"0{hour}:00".encode()} for hour in (1, 2)]
        published = pool.map(
            lambda number: publish(site.machine(str(number)), files[number], "snapshot", digest), (0, 1)
        )
        (ref,) = set(published)
    assert content(site.machine("reader").path(ref)) in files


def test_a_hostile_manifest_is_refused(site, tmp_path):
    ref = publish(site.machine(), FILES)
    honest = json.loads(site.objects.read(ref.manifest))
    for name in ("../outside", "/etc/outside", "policy/../../outside", "policy//model.bin", "metrics.json/inner"):
        entry = ["0" * 64, 1]
        site.objects.write(ref.manifest, json.dumps({**honest, "files": {**honest["files"], name: entry}}).encode())
        with pytest.raises(
            DamagedArtifact, match=r"manifest\.json` cannot be used: .*(outside of|as if it were a fold)"
        ):
            site.machine("two").path(ref)
    assert not list(tmp_path.rglob("outside"))
    for text in (b"", b"[]", b"\xff", b'{"format": 1, "files": {"a": 3}}'):
        site.objects.write(ref.manifest, text)
        with pytest.raises(DamagedArtifact):
            site.machine("two").path(ref)
    publish(site.machine(), FILES)
    assert content(site.machine("two").path(ref)) == FILES


def test_a_later_version_is_not_taken_for_damage(site):
    ref = publish(site.machine(), FILES)
    honest = json.loads(site.objects.read(ref.manifest))
    site.objects.write(ref.manifest, json.dumps({**honest, "format": 2}).encode())
    with pytest.raises(WorkspaceError, match="has version 2; this program reads version 1"):
        site.machine("two").path(ref)


def test_an_address_that_leads_elsewhere_is_no_ref():
    for kind, uri, sha256 in [("..", "../1", "1"), ("a", "b/1", "1"), ("a", "a/../x", "../x"), ("", "/1", "1")]:
        with pytest.raises(ValueError, match="address"):
            Ref(kind=kind, uri=uri, sha256=sha256)


def test_each_file_is_hashed_once_when_it_is_published_and_once_when_it_is_used(site, monkeypatch):
    from rlhf_flows.artifact_store import manifest

    hashed = []
    digest = manifest.file_digest
    monkeypatch.setattr(manifest, "file_digest", lambda path: hashed.append(path.name) or digest(path))
    store = site.machine()
    ref = publish(store, FILES)
    assert len(hashed) == len(FILES)
    for _ in range(3):
        store.path(ref)
    assert len(hashed) == 2 * len(FILES)
    hashed.clear()
    other = site.machine("two")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: other.path(ref), range(8)))
    assert len(hashed) == len(FILES)


def test_an_empty_folder_arrives(site):
    store = site.machine()
    with store.draft("x") as draft:
        (draft / "empty" / "inner").mkdir(parents=True)
        (draft / "file").write_text("x")
        ref = store.publish("data", draft)
    assert (site.machine("two").path(ref) / "empty" / "inner").is_dir()


def test_a_link_becomes_the_file_that_it_leads_to(site, tmp_path):
    (tmp_path / "shared").write_text("content")
    store = site.machine()
    with store.draft("x") as draft:
        (draft / "linked").symlink_to(tmp_path / "shared")
        ref = store.publish("data", draft)
    (tmp_path / "shared").unlink()
    assert content(site.machine("two").path(ref)) == {"linked": b"content"}
    with pytest.raises(WorkspaceError, match="leads to no file"), store.draft("x") as draft:
        (draft / "linked").symlink_to(tmp_path / "nowhere")
        store.publish("data", draft)


def test_documents(site):
    store, other = site.machine(), site.machine("two")
    assert other.read_text("results/a.json") is None
    assert other.names("results") == []
    store.write_text("results/b.json", "1")
    store.write_text("results/a.json", "grün")
    store.write_text("results/deeper/c.json", "3")
    assert other.names("results") == ["a.json", "b.json"]
    assert other.read_text("results/a.json") == "grün"
    other.write_text("results/a.json", "2")
    assert store.read_text("results/a.json") == "2"
    store.remove_text("results/a.json")
    store.remove_text("results/a.json")
    assert other.names("results") == ["b.json"]
    assert other.read_text("results") is None
    with pytest.raises(WorkspaceError, match="cannot name a document"):
        store.write_text("../outside", "x")
    assert store.url("results/b.json") == f"{site.root}/results/b.json"
    assert store.url("") == site.root


def test_a_store_that_works_passes_its_check(site):
    site.machine().check()
    assert site.objects.names() == []


def test_a_store_crosses_process_borders(site):
    ref = publish(site.machine(), FILES)
    copy = pickle.loads(pickle.dumps(site.machine("two", cache_bytes=17)))
    assert copy.cache_bytes == 17
    assert content(copy.path(ref)) == FILES


def test_the_error_crosses_process_borders():
    error = DamagedArtifact(Ref(kind="policy", uri="policy/1", sha256="1"), "model.bin", "is missing", "s3://x")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DamagedArtifact
    assert (copy.ref, copy.file, copy.where, str(copy)) == (error.ref, "model.bin", "s3://x", str(error))
    assert "\n" in str(copy)


def test_drafts_of_the_dead_are_cleared_and_those_of_the_living_stay(site, tmp_path):
    store = site.machine()
    left = store.scratch / "drafts" / "ppo-dead"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    (store.scratch / "drafts" / "reward-dead.lock").touch()
    with store.draft("alive") as draft:
        pid = os.fork()
        if pid == 0:  # another process, which starts a run here
            site.machine().clear_drafts()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert draft.is_dir()
        assert not left.exists()
    store.clear_drafts()
    assert list((store.scratch / "drafts").iterdir()) == []


def test_the_store_is_found_by_a_file_url(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/artifacts", tmp_path / "scratch")
    ref = publish(store, FILES)
    assert store.local
    assert store.path(ref) == tmp_path / "artifacts" / ref.uri
