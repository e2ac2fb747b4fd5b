"""MLflow's artifacts in an object store, beside a database of runs that is a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.tracking import CHAMPION, Origin, Tracker, TrackingError, lineage, object_store
from s3_server import BUCKET, S3Server, s3_server

Fresh = Callable[[], Tracker]


@pytest.fixture
def far(fresh: Fresh, s3_root: str) -> Fresh:
    """Opens an experiment whose artifacts lie in a bucket, each call anew as another process would."""

    def opened() -> Tracker:
        near = fresh()
        return Tracker.open(near.lock.parent, near.experiment, artifact_root=f"{s3_root}/mlflow")

    return opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def keys(s3: S3Server, prefix: str) -> list[str]:
    found = s3.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_everything_lies_in_the_bucket_and_comes_back(
    far: Fresh,
    folder: Path,
    tmp_path: Path,
    s3: S3Server,
    s3_root: str,
) -> None:
    tracker = far()
    before = set(tracker.lock.parent.rglob("*"))
    run = tracker.campaign("c", "campaign")
    run.log_text("报告", "report.html")
    run.log_artifact(folder)
    run.log_table("samples", [{"prompt": "a", "score": 1.0}])
    name = f"{tracker.experiment}-policy"
    start = tracker.models.log_policy(run, folder, name, Origin("p0", 0, "c"))
    whence = Origin("p1", 1, "c", parent_policy="p0", snapshot="s1", snapshot_uri="snapshot/s1")
    version = tracker.models.log_policy(run, folder, name, whence, {"win": Metric(value=0.9)})
    tracker.models.set_alias(name, CHAMPION, version.version)
    run.finish()

    # Another process, which is told nothing but the address of the database.
    again = Tracker.at(tracker.uri, tracker.experiment)
    place = Path(again.client.download_artifacts(run.run_id, "", dst_path=str(tmp_path)))
    assert (place / "report.html").read_text("utf-8") == "报告"
    assert (place / "policy" / "tokenizer" / "vocab.json").read_text() == "{}"
    assert json.loads((place / "samples.json").read_text())["data"] == [["a", 1.0]]

    import mlflow

    mlflow.set_tracking_uri(again.uri)
    copy = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / "copy")))
    assert (copy / "model.safetensors").read_bytes() == b"weights" * 1000
    assert "`p0`" in (copy / "README.md").read_text()
    assert [link.policy.version for link in lineage(again, name).links] == [version.version, start.version]

    prefix = s3_root.removeprefix(f"s3://{BUCKET}/")
    stored = keys(s3, prefix)
    assert sum(key.endswith("model.safetensors") for key in stored) == 3
    assert all(key.startswith(f"{prefix}/mlflow/") for key in stored)
    files = {path for path in tracker.lock.parent.rglob("*") if path.is_file()} - before
    assert not [path for path in files if not path.name.startswith("mlflow.")]


def test_registering_again_after_a_kill_in_the_middle_of_an_upload(far: Fresh, folder: Path) -> None:
    tracker = far()
    name = f"{tracker.experiment}-policy"
    upload = tracker.client.log_model_artifacts
    uploads = []

    def killed(*args: object) -> None:
        uploads.append(upload(*args))
        raise KeyboardInterrupt

    tracker.client.log_model_artifacts = killed  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        tracker.models.log_policy(tracker.campaign("c", "campaign"), folder, name, Origin("p1", 1, "c"))
    again = far()
    version = again.models.log_policy(again.campaign("c", "campaign"), folder, name, Origin("p1", 1, "c"))
    assert len(again.client.search_logged_models([again.experiment_id])) == 1
    files = {file.path for file in again.client.list_logged_model_artifacts(version.model_id)}
    assert files == {"README.md", "model.safetensors", "tokenizer"}


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server() as server:
        # MLflow keeps clients by what it is told of the endpoint; boto3 reads AWS_ENDPOINT_URL by itself.
        own = {"AWS_MAX_ATTEMPTS": "1", "MLFLOW_S3_ENDPOINT_URL": server.endpoint}
        for name, value in {**server.env, **own}.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_store_that_is_away_is_one_clear_error(fresh: Fresh, own_server: S3Server) -> None:
    near = fresh()
    root = own_server.make_bucket("away") + "/mlflow"
    tracker = Tracker.open(near.lock.parent, near.experiment, artifact_root=root)
    run = tracker.campaign("c", "campaign")
    own_server.kill()
    with pytest.raises(TrackingError, match="artifacts cannot be reached") as caught:
        run.log_text("report", "report.html")
    assert "AWS_ENDPOINT_URL" in caught.value.remedy
    own_server.start()
    run.log_text("report", "report.html")
    with pytest.raises(TrackingError, match="does not exist"):
        other = Tracker.open(near.lock.parent, f"{near.experiment}-other", artifact_root="s3://nowhere/mlflow")
        other.campaign("c", "campaign").log_text("report", "report.html")


def test_what_is_not_installed_is_said_before_anything_runs(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    near = fresh()
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(TrackingError, match="through boto3, which is not installed") as caught:
        Tracker.open(near.lock.parent, near.experiment, artifact_root="s3://b/p").campaign("c", "campaign")
    assert caught.value.remedy == 'Run `pip install "rlhf-pipeline[s3]"`.'


@pytest.mark.parametrize(
    ("root", "known"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("/some/folder", "/some/folder"),
        ("file:///some/folder", "file:///some/folder"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a/b", "wasbs://container@mine.blob.core.windows.net/a/b"),
        ("wasbs://c@other.blob.core.windows.net/a", "wasbs://c@other.blob.core.windows.net/a"),
    ],
)
def test_addresses_are_those_that_mlflow_knows(root: str, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store.importlib, "import_module", lambda name: None)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    assert object_store.location(root) == known


def test_an_azure_account_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store.importlib, "import_module", lambda name: None)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(TrackingError, match="storage account") as caught:
        object_store.location("az://container/a")
    assert caught.value.remedy == "Set AZURE_STORAGE_ACCOUNT_NAME."
