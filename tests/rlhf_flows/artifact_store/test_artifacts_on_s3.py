"""The store on a real S3 server, which is killed in between."""

import os
import subprocess
import sys
import threading
import time

import pytest
from artifact_samples import FILES, content, publish

from rlhf_core.errors import ServerError
from rlhf_flows.artifact_store import ArtifactStore, DamagedArtifact, connection
from s3_server import BUCKET, s3, s3_root  # noqa: F401

READ = """
import sys
from pathlib import Path
from rlhf_flows.artifact_store import ArtifactStore, Ref
folder = ArtifactStore(sys.argv[1], Path(sys.argv[2])).path(Ref(kind="policy", uri=sys.argv[3], sha256=sys.argv[3][7:]))
print(len([path for path in folder.rglob("*") if path.is_file()]))
"""


@pytest.fixture
def machine(s3_root, tmp_path):  # noqa: F811
    """The store as each of several machines sees it."""
    return lambda name="one": ArtifactStore(f"{s3_root}/team", tmp_path / name)


def test_published_fetched_damaged_and_published_anew(machine, s3):  # noqa: F811
    store = machine()
    ref = publish(store, FILES)
    assert publish(machine("two"), FILES) == ref
    assert ref in machine("three")
    assert content(machine("three").path(ref)) == FILES
    prefix = store.root.removeprefix(f"s3://{BUCKET}/")
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{ref.uri}/metrics.json", Body=b'{"reward": 2}')
    with pytest.raises(DamagedArtifact, match=r"`metrics.json` has another content"):
        machine("four").path(ref)
    machine("four").discard(ref)
    assert ref not in store
    left = s3.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    assert [each["Key"] for each in left if not each["Key"].endswith("/")] == []
    publish(store, FILES)
    assert content(machine("four").path(ref)) == FILES


def test_documents(machine):
    store = machine()
    store.check()
    assert store.names("results") == []
    store.write_text("results/b.json", "1")
    store.write_text("results/a.json", "2")
    store.write_text("results/a.json", "3")
    assert machine("two").names("results") == ["a.json", "b.json"]
    assert machine("two").read_text("results/a.json") == "3"
    store.remove_text("results/a.json")
    store.remove_text("results/a.json")
    assert machine("two").names("results") == ["b.json"]
    assert machine("two").read_text("results/a.json") is None
    assert store.url("results/b.json").startswith(f"s3://{BUCKET}/")


def test_a_large_file_goes_in_parts(machine, monkeypatch):
    import s3fs.core

    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, **_: 5 * 2**20)  # instead of 50 MB
    store = machine()
    data = os.urandom(2**20) * 12
    ref = publish(store, {"policy/model.safetensors": data})
    assert content(machine("two").path(ref)) == {"policy/model.safetensors": data}


def test_two_processes_fetch_into_one_cache(machine):
    ref = publish(machine("publisher"), FILES)
    store = machine()
    command = [sys.executable, "-c", READ, store.root, str(store.scratch), ref.uri]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["3", "3"]
    assert content(store.path(ref)) == FILES


def test_a_forked_process_opens_connections_of_its_own(machine):
    store = machine()
    ref = publish(machine("publisher"), FILES)
    assert ref in store
    pid = os.fork()
    if pid == 0:
        os._exit(0 if content(store.path(ref)) == FILES else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_bucket_that_is_missing_and_a_key_that_is_wrong_are_told_at_once(machine, tmp_path, monkeypatch):
    with pytest.raises(ServerError, match="bucket of the artifact root does not exist"):
        ArtifactStore("s3://nobody-made-this/x", tmp_path).check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ServerError, match="refuses access"):
        machine().check()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ServerError, match="there are no credentials"):
        machine("two").check()


def test_a_server_that_is_gone_for_some_seconds_is_waited_for(machine, s3, monkeypatch):  # noqa: F811
    files = {f"policy/part-{number}": os.urandom(500_000) for number in range(60)}
    store, published = machine(), []
    sent = threading.Event()
    put = connection.Connection.call

    def noticed(self, request):
        result = put(self, request)
        published.append("request")
        if len(published) > 10:
            sent.set()
        return result

    monkeypatch.setattr(connection.Connection, "call", noticed)
    refs = []
    publishing = threading.Thread(target=lambda: refs.append(publish(store, files)))
    publishing.start()
    assert sent.wait(20)
    s3.kill()
    assert len(published) < 60, "the server was killed too late to tell"
    time.sleep(2)
    s3.start()
    publishing.join(60)
    assert refs, "nothing was published"
    assert refs[0] in machine("two")
    assert content(machine("two").path(refs[0])) == files


def test_a_server_that_stays_away_is_told(machine, s3, monkeypatch):  # noqa: F811
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    s3.kill()
    try:
        with pytest.raises(ServerError, match="does not answer, also after 1 seconds") as caught:
            machine("two").read_text("results/a.json")
        assert s3.endpoint in caught.value.remedy
    finally:
        s3.start()
