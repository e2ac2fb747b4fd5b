from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.tracking import Tracker, TrackingError
from rlhf_core.tracking.run import clean_name

Fresh = Callable[[], Tracker]


def data(tracker: Tracker, run_id: str):
    return tracker.client.get_run(run_id).data


def test_four_processes_share_a_fresh_database(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rlhf_core.tracking import Tracker\n"
        "run = Tracker.open(Path(sys.argv[1]), 'shared').campaign(sys.argv[2], 'c')\n"
        "run.log_metrics({'m': 1.0}, 0); run.finish(); print(run.tracker.experiment_id)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"key{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for number in range(4)
    ]
    ended = [(process.communicate(), process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 4, ended
    assert len({out for (out, _), _ in ended}) == 1
    tracker = Tracker.open(tmp_path, "shared")
    assert all(tracker.find(f"key{number}") for number in range(4))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_same_key_goes_on_in_the_same_run(fresh: Fresh) -> None:
    first = fresh().campaign("k/1", "campaign", {"seed": 7, "lr": 0.1}, {"rlhf.pipeline": "p"})
    assert not first.resumed
    first.finish("FAILED")
    again = fresh()
    second = again.campaign("k/1", "campaign", {"seed": 7, "lr": 0.2, "new": "x"})
    assert second.run_id == first.run_id and second.resumed
    found = again.client.get_run(second.run_id)
    assert found.info.status == "RUNNING"
    assert found.data.params == {"seed": "7", "lr": "0.1", "new": "x"}
    assert json.loads(found.data.tags["rlhf.changed_params"]) == {"lr": "0.2"}
    assert fresh().campaign("k/2", "campaign").run_id != first.run_id


def test_children_nest_and_those_left_running_are_killed(fresh: Fresh) -> None:
    tracker = fresh()
    campaign = tracker.campaign("c", "campaign")
    stage = campaign.child("c/1", "round 1").child("c/1/ppo", "ppo", {"rlhf.stage": "ppo"})
    done = campaign.child("c/0", "round 0")
    done.finish()

    later = fresh()
    campaign = later.campaign("c", "campaign")
    assert later.client.get_run(stage.run_id).info.status == "KILLED"
    assert later.client.get_run(done.run_id).info.status == "FINISHED"
    round_1 = campaign.child("c/1", "round 1")
    again = round_1.child("c/1/ppo", "ppo")
    assert again.run_id == stage.run_id and again.resumed
    tags = data(later, again.run_id).tags
    assert tags["mlflow.parentRunId"] == round_1.run_id
    assert tags["rlhf.root"] == campaign.run_id
    assert again.path.startswith(f"#/experiments/{later.experiment_id}/runs/{again.run_id}?")


def test_a_worker_elsewhere_logs_below_a_round_by_its_ids(fresh: Fresh) -> None:
    tracker = fresh()
    campaign = tracker.campaign("c", "campaign")
    round_1 = campaign.child("c/1", "round 1")
    assert (campaign.root_id, round_1.root_id) == (campaign.run_id, campaign.run_id)

    worker = Tracker.at(tracker.uri, tracker.experiment)
    stage = worker.child_of(round_1.run_id, campaign.run_id, "c/1/ppo", "ppo", {"rlhf.stage": "ppo"})
    stage.log_metrics({"reward": 0.5}, 1)
    stage.finish()

    # The same run as one made through its parent, whichever comes first.
    again = round_1.child("c/1/ppo", "ppo")
    assert again.run_id == stage.run_id and again.resumed
    found = data(tracker, stage.run_id)
    assert found.metrics == {"reward": 0.5}
    assert found.tags["mlflow.parentRunId"] == round_1.run_id
    assert found.tags["rlhf.root"] == campaign.run_id and found.tags["rlhf.stage"] == "ppo"


def test_a_run_is_opened_again_by_its_id_without_a_search(fresh: Fresh) -> None:
    run = fresh().campaign("c", "campaign", {"seed": 7})
    run.finish()
    worker = fresh()

    def searched(*args: object, **kwargs: object) -> None:
        raise AssertionError("a run known by its id was searched for")

    worker.client.search_runs = searched  # type: ignore[attr-defined]
    again = worker.run(run.run_id, "c")
    assert again.resumed and again.tags["rlhf.key"] == "c"
    assert data(worker, run.run_id).params == {"seed": "7"}
    assert worker.client.get_run(run.run_id).info.status == "FINISHED"
    with pytest.raises(TrackingError, match="belongs to `c`, not to `other`"):
        worker.run(run.run_id, "other")
    worker.client.delete_run(run.run_id)
    with pytest.raises(TrackingError, match="was deleted"):
        worker.run(run.run_id, "c")
    with pytest.raises(TrackingError, match="not found"):
        worker.run("0" * 32, "c")


def test_a_resumed_run_does_not_repeat_points(fresh: Fresh) -> None:
    run = fresh().campaign("c", "campaign")
    for step in range(6):
        run.log_metrics({"reward": step / 3, "odd": math.nan, "huge": math.inf}, step)
    run.flush()
    tracker = fresh()
    run = tracker.campaign("c", "campaign")
    for step in range(3, 9):
        run.log_metrics({"reward": step / 3, "odd": math.nan, "huge": math.inf}, step)
    run.log_metrics({"reward": 99.0}, 2)
    run.finish()
    history = tracker.client.get_metric_history(run.run_id, "reward")
    assert sorted((point.step, point.value) for point in history) == sorted(
        [(step, step / 3) for step in range(9)] + [(2, 99.0)]
    )
    for name in ("odd", "huge"):
        assert [point.step for point in tracker.client.get_metric_history(run.run_id, name)] == list(range(9))


def test_metrics_are_batched_and_written_by_finish(tracker: Tracker) -> None:
    run = tracker.campaign("c", "campaign")
    batches = []
    write = tracker.client.log_batch
    tracker.client.log_batch = lambda *args, **kwargs: (batches.append(1), write(*args, **kwargs))  # type: ignore[attr-defined]
    for step in range(200):
        run.log_metrics({"a": step, "b": -step}, step)
    assert len(batches) < 10
    run.finish()
    found = tracker.client.get_run(run.run_id)
    assert (found.data.metrics["a"], found.data.metrics["b"]) == (199, -199)
    assert len(tracker.client.get_metric_history(run.run_id, "a")) == 200
    assert found.info.status == "FINISHED"


def test_threads_log_to_runs_of_their_own(tracker: Tracker) -> None:
    campaign = tracker.campaign("c", "campaign")

    def work(name: str) -> None:
        run = campaign.child(name, name)
        for step in range(20):
            run.log_metrics({"m": step}, step)
        run.finish()

    threads = [threading.Thread(target=work, args=(f"stage{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        run = tracker.find(f"stage{number}")
        assert run is not None
        assert len(tracker.client.get_metric_history(run.run_id, "m")) == 20


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("win_rate", "win_rate"),
        ("kl(champion)", "kl_champion"),
        ("ppo/reward mean", "ppo/reward mean"),
        ("../../x", "x"),
        ("a//b/", "a/b"),
        ("(%)", "unnamed"),
        ("准确率", "准确率"),
    ],
)
def test_metric_names_are_made_acceptable(name: str, clean: str, tracker: Tracker) -> None:
    assert clean_name(name) == clean


def test_metrics_of_any_name_arrive(tracker: Tracker) -> None:
    run = tracker.campaign("c", "campaign")
    names = ["kl(champion)", "a//b/../c", "p@1 [%]", "准确率", "x" * 300]
    run.log_metrics(dict.fromkeys(names, 1.0), 0)
    run.finish()
    assert set(data(tracker, run.run_id).metrics) == {clean_name(name) for name in names}


def test_intervals_become_metrics(tracker: Tracker) -> None:
    run = tracker.campaign("c", "campaign")
    run.log_metric_objects({"win": Metric(value=0.7, low=0.6, high=0.8, n=9), "kl": Metric(value=3.0)}, 2)
    run.finish()
    assert data(tracker, run.run_id).metrics == {"win": 0.7, "win_low": 0.6, "win_high": 0.8, "kl": 3.0}


def test_artifacts_tables_and_datasets(fresh: Fresh, tmp_path: Path) -> None:
    tracker = fresh()
    run = tracker.campaign("c", "campaign")
    run.log_text("<p>报告</p>", "report.html")
    (tmp_path / "file.txt").write_text("x")
    run.log_artifact(tmp_path / "file.txt", "files")
    for _ in range(2):
        run.log_table("samples", [{"prompt": "a", "score": 1.0}, {"prompt": "b", "note": "n"}])
        run.log_dataset("d" * 64, "feedback", 12, "/some/where")
    run.describe("# What happened")
    run.finish()
    place = tracker.client.download_artifacts(run.run_id, "")
    assert Path(place, "report.html").read_text(encoding="utf-8") == "<p>报告</p>"
    assert Path(place, "files/file.txt").read_text() == "x"
    table = json.loads(Path(place, "samples.json").read_text())
    assert table == {"columns": ["prompt", "score", "note"], "data": [["a", 1.0, None], ["b", None, "n"]]}
    found = tracker.client.get_run(run.run_id)
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]
    (entry,) = found.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("feedback", "d" * 36)
    assert json.loads(entry.dataset.profile) == {"num_rows": 12}
    assert Path(place).is_relative_to(tracker.lock.parent / "artifacts" / "mlflow")


def test_prepare_works_ahead_and_a_failure_shows_at_the_first_use(tmp_path: Path, fresh: Fresh) -> None:
    assert fresh().prepare().campaign("c", "campaign").run_id
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at as one")
    tracker = Tracker.open(tmp_path, "p").prepare()
    with pytest.raises(TrackingError, match=r"cannot be read or migrated") as caught:
        tracker.campaign("c", "campaign")
    assert str(tmp_path) in caught.value.where


def test_a_half_written_draft_is_no_database(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / f".mlflow.db.{os.getpid()}").write_bytes((workspace / "mlflow.db").read_bytes()[:5000])
    assert Tracker.open(tmp_path, "p").campaign("c", "campaign").run_id
    assert not list(tmp_path.glob(".mlflow.db.*"))


def test_a_server_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    tracker = Tracker.open(tmp_path, "p", uri="http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="does not answer"):
        tracker.campaign("c", "campaign")


def test_a_database_of_another_mlflow_is_refused_and_kept(tmp_path: Path, workspace: Path) -> None:
    with sqlite3.connect(workspace / "mlflow.db") as source, sqlite3.connect(tmp_path / "mlflow.db") as target:
        source.backup(target)
        target.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match="another version of MLflow"):
        Tracker.open(tmp_path, "p").campaign("c", "campaign")
    assert (tmp_path / "mlflow.db").exists()


def test_importing_tracking_loads_no_mlflow() -> None:
    code = "import sys, rlhf_core.tracking; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
