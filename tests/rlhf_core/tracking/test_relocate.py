from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rlhf_core.tracking import CHAMPION, Origin, Tracker, TrackingError
from rlhf_core.tracking.relocate import _Move, relocate

PIPELINE = "moved"
MODEL = "moved-policy"


@pytest.fixture
def made(tmp_path: Path, workspace: Path) -> Path:
    """A workspace, in a folder whose name has to be quoted in an address, with a run, a data set and a model."""
    folder = tmp_path / "old place" / "50% ü#1"
    folder.mkdir(parents=True)
    # A copy of an empty database is there at once; making one takes seconds.
    databases = (sqlite3.connect(place / "mlflow.db") for place in (workspace, folder))
    with closing(next(databases)) as source, closing(next(databases)) as target:
        source.backup(target)
    model = folder / "artifacts" / "policy" / "p1"
    model.mkdir(parents=True)
    (model / "weights").write_text("w" * 100)
    tracker = Tracker.open(folder, PIPELINE)
    run = tracker.campaign("c", "campaign")
    run.log_text("report", "report.html")
    run.log_dataset("d" * 64, "feedback", 3, str(folder / "artifacts" / "snapshot" / "s1"))
    run.set_tags({"rlhf.artifact": "policy/p1"})
    origin = Origin("p1", 1, "c", snapshot="s1", snapshot_uri=str(folder / "artifacts" / "snapshot" / "s1"))
    version = tracker.models.log_policy(run, model, MODEL, origin)
    tracker.models.set_alias(MODEL, CHAMPION, version.version)
    run.finish()
    close()
    return folder


def close() -> None:
    """Let go of all databases, and of where runs' artifacts were, as the end of a process does."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
    for store in (Tracking, Registry):
        for engine in store._engine_map.values():
            engine.dispose()


def addresses(folder: Path) -> list[str]:
    """Whatever stands in the database as text."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in database.execute(f"SELECT * FROM {table}")]
    return [value for row in rows for value in row if isinstance(value, str)]


def use(folder: Path) -> None:
    """Read everything that the old place held, and go on in the new one."""
    import mlflow

    tracker = Tracker.open(folder, PIPELINE)
    run = tracker.find("c")
    assert run is not None
    assert Path(tracker.client.download_artifacts(run.run_id, "report.html")).read_text() == "report"
    mlflow.set_tracking_uri(tracker.uri)
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}@champion"))
    assert (files / "weights").read_text() == "w" * 100
    assert files.is_relative_to(folder)
    (entry,) = tracker.client.get_run(run.run_id).inputs.dataset_inputs
    assert json.loads(entry.dataset.source) == {"uri": str(folder / "artifacts" / "snapshot" / "s1")}
    version = tracker.models.get(MODEL, CHAMPION)
    assert version is not None and version.origin.snapshot_uri == str(folder / "artifacts" / "snapshot" / "s1")

    later = tracker.campaign("later", "campaign")
    later.log_text("new", "new.txt")
    run.log_text("more", "more.txt")
    second = tracker.models.log_policy(later, folder / "artifacts" / "policy" / "p1", MODEL, Origin("p2", 2, "c"))
    assert second.version == 2
    written = {path.name for path in (folder / "artifacts" / "mlflow").rglob("*") if path.is_file()}
    assert {"new.txt", "more.txt", "report.html", "weights"} <= written
    close()


def test_a_moved_workspace_goes_on_where_it_lies(made: Path, tmp_path: Path) -> None:
    new = tmp_path / "new" / "place +1"
    new.parent.mkdir()
    shutil.move(made, new)
    assert any(str(made) in value or made.as_uri() in value for value in addresses(new))
    # The experiment, the run, the logged model, the version's files, the data set, and the snapshot of both models.
    changed = relocate(new / "mlflow.db", made, new)
    assert changed >= 7
    assert not [value for value in addresses(new) if str(made) in value or made.as_uri() in value]
    use(new)
    assert not made.exists()
    assert relocate(new / "mlflow.db", made, new) == 0


def test_a_copy_leaves_the_original_alone(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    before = sorted(path for path in made.rglob("*") if path.is_file())
    assert relocate(copy / "mlflow.db", made, copy)
    use(copy)
    assert sorted(path for path in made.rglob("*") if path.is_file()) == before
    shutil.rmtree(copy)
    use(made)


def test_a_database_that_somebody_has_open_is_left_as_it_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_core.tracking.relocate.PATIENCE", 0.1)
    database = made / "mlflow.db"
    before = addresses(made)
    reader = sqlite3.connect(database)
    reader.execute("SELECT count(*) FROM runs").fetchall()
    with pytest.raises(TrackingError, match="another program has it open") as caught:
        relocate(database, made, tmp_path / "elsewhere")
    assert "Stop what uses the workspace" in caught.value.remedy
    reader.close()
    assert addresses(made) == before
    assert relocate(database, made, tmp_path / "elsewhere")


def test_without_a_database_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert relocate(tmp_path / "mlflow.db", tmp_path / "a", tmp_path / "b") == 0
    assert not (tmp_path / "mlflow.db").exists()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at as one")
    with pytest.raises(TrackingError, match="cannot be brought up to date") as caught:
        relocate(tmp_path / "mlflow.db", tmp_path / "a", tmp_path / "b")
    assert caught.value.where == str(tmp_path / "mlflow.db")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/a/b", "/n w"),
        ("/a/b/c d", "/n w/c d"),
        ("/a/bc", "/a/bc"),
        ("/x/a/b", "/x/a/b"),
        ("a/b/c", "a/b/c"),
        ("file:///a/b", "file:///n%20w"),
        ("file:///a/b/c%20d", "file:///n%20w/c%20d"),
        ("file:///a/%62/c", "file:///n%20w/c"),
        ("file:/a/b/c", "file:/n%20w/c"),
        ("file:///a/bc", "file:///a/bc"),
        ("file:///a/b%2Fc", "file:///a/b%2Fc"),
        ("s3://a/b/c", "s3://a/b/c"),
        ("models:/a/b", "models:/a/b"),
        ('{"uri": "/a/b/c", "rows": 3}', '{"uri": "/n w/c", "rows": 3}'),
        ('{"uri":"/a/bc"}', '{"uri":"/a/bc"}'),
        ("{no json", "{no json"),
        ("", ""),
        (None, None),
    ],
)  # fmt: skip
def test_only_whole_names_of_folders_are_replaced(before: str | None, after: str | None) -> None:
    assert _Move(Path("/a/b"), Path("/n w")).text(before) == after


def test_into_a_folder_below_and_above() -> None:
    into: Callable[[str], str] = _Move(Path("/a"), Path("/a/b")).text
    assert into("/a/c") == "/a/b/c" and into("/a/b/c") == "/a/b/c"
    out: Callable[[str], str] = _Move(Path("/a/b"), Path("/a")).text
    assert out("/a/b/c") == "/a/c" and out("/a/c") == "/a/c"
    assert _Move(Path("/a"), Path("/")).text("/a/c") == "/c"
