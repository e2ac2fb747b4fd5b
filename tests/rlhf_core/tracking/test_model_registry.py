from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.tracking import CHAMPION, Origin, Tracker
from rlhf_core.tracking.registry import link_tree

Fresh = Callable[[], Tracker]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def origin(digest: str = "d1", round: int = 1, **fields: object) -> Origin:
    return Origin(digest=digest, round=round, campaign="c", **fields)  # type: ignore[arg-type]


def test_a_policy_is_a_logged_model_and_a_version(fresh: Fresh, folder: Path, tmp_path: Path) -> None:
    tracker = fresh()
    name = f"{tracker.experiment}-policy"
    run = tracker.campaign("c", "campaign")
    whence = origin(seed=7, parent_policy="d0", reward="r1", snapshot="s1", snapshot_uri="snapshot/s1")
    metrics = {"win": Metric(value=0.9, low=0.8, high=0.95), "kl": Metric(value=4.0)}
    version = tracker.models.log_policy(run, folder, name, whence, metrics, {"note": "x"})
    assert version.version == 1 and version.origin == whence and version.run_id == run.run_id

    model = tracker.client.get_logged_model(version.model_id)
    assert model.status == "READY" and model.model_type == "policy"
    assert {metric.key: metric.value for metric in model.metrics} == {
        "win": 0.9, "win_low": 0.8, "win_high": 0.95, "kl": 4.0,
    }  # fmt: skip
    outputs = tracker.client.get_run(run.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [version.model_id]

    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    tracker.models.set_alias(name, CHAMPION, version.version)
    copy = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / "copy")))
    assert (copy / "model.safetensors").read_bytes() == b"weights" * 1000
    assert (copy / "tokenizer" / "vocab.json").read_text() == "{}"
    card = (copy / "README.md").read_text()
    assert "0.90 [0.80, 0.95]" in card and "s1" in card


def test_metrics_of_a_model_do_not_double_those_of_its_run(fresh: Fresh, folder: Path) -> None:
    tracker = fresh()
    metrics = {"win": Metric(value=0.9, low=0.8), "odd": Metric(value=math.nan)}
    for _ in range(2):
        again = fresh()
        run = again.campaign("c", "campaign")
        run.log_metric_objects(metrics, 1)
        again.models.log_policy(run, folder, f"{tracker.experiment}-policy", origin(), metrics)
    run.finish()
    for name in ("win", "win_low", "odd"):
        assert len(tracker.client.get_metric_history(run.run_id, name)) == 1
    (model,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert {metric.key: metric.value for metric in model.metrics} == {"win": 0.9, "win_low": 0.8}
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": f"{tracker.experiment}-policy", "version": "1"}]


def test_a_campaign_shows_the_champion_of_a_round(tracker: Tracker, folder: Path) -> None:
    campaign = tracker.campaign("c", "campaign")
    child = campaign.child("c/1", "round 1")
    version = tracker.models.log_policy(child, folder, f"{tracker.experiment}-policy", origin())
    for _ in range(2):
        campaign.link_model(version, 1)
    outputs = tracker.client.get_run(campaign.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [version.model_id]


def test_registering_twice_gives_the_same_version(fresh: Fresh, folder: Path) -> None:
    tracker = fresh()
    name = f"{tracker.experiment}-policy"
    run = tracker.campaign("c", "campaign")
    first = tracker.models.log_policy(run, folder, name, origin())
    again = fresh()
    assert again.models.log_policy(again.campaign("c", "campaign"), folder, name, origin()).version == first.version
    assert tracker.models.log_policy(run, folder, name, origin(round=2)).version == 2
    assert tracker.models.log_policy(run, folder, name, origin("d2", 2)).version == 3
    assert [version.origin.digest for version in tracker.models.versions(name)] == ["d1", "d1", "d2"]
    assert [version.version for version in tracker.models.versions(name, digest="d2")] == [3]


def test_a_kill_between_logging_and_registering_leaves_no_second_model(fresh: Fresh, folder: Path) -> None:
    tracker = fresh()
    name = f"{tracker.experiment}-policy"
    run = tracker.campaign("c", "campaign")

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    tracker.client.create_model_version = killed  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        tracker.models.log_policy(run, folder, name, origin())
    again = fresh()
    version = again.models.log_policy(again.campaign("c", "campaign"), folder, name, origin())
    assert len(again.client.search_logged_models([again.experiment_id])) == 1
    assert version.version == 1


def test_aliases_move_and_go(tracker: Tracker, folder: Path) -> None:
    name = f"{tracker.experiment}-policy"
    assert tracker.models.get(name, CHAMPION) is None
    assert tracker.models.versions(name) == []
    run = tracker.campaign("c", "campaign")
    for round in range(2):
        tracker.models.log_policy(run, folder, name, origin(f"d{round}", round))
    tracker.models.set_alias(name, "champion", 1)
    tracker.models.set_alias(name, "challenger", 2)
    tracker.models.set_alias(name, "champion", 2)
    champion = tracker.models.get(name, "champion")
    assert champion is not None and champion.version == 2
    assert champion.aliases == ("challenger", "champion")
    for _ in range(2):
        tracker.models.drop_alias(name, "challenger")
    assert tracker.models.get(name, "challenger") is None
    assert tracker.models.get(name, 1).aliases == ()  # type: ignore[union-attr]
    assert tracker.models.get(name, 9) is None


def test_the_gates_verdict_stands_in_the_registry(tracker: Tracker, folder: Path) -> None:
    name = f"{tracker.experiment}-policy"
    version = tracker.models.log_policy(tracker.campaign("c", "campaign"), folder, name, origin())
    assert version.gate is None
    reasons = ["win rate 0.51 [0.46, 0.56] is not above 0.5", "kl 说明"]
    tracker.models.record_gate(version, False, reasons)
    found = tracker.models.get(name, 1)
    assert found is not None and found.gate == {"promote": False, "reasons": reasons}
    assert found.tags["rlhf.promoted"] == "false"
    assert "Not promoted in round 1" in tracker.client.get_model_version(name, "1").description


def test_origin_survives_tags() -> None:
    whence = origin(seed=3, reward="r")
    assert Origin.of(whence.tags()) == whence
    assert "rlhf.parent_policy" not in whence.tags()


def test_files_are_linked_not_copied(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"stays")
    link_tree(folder, target)
    assert (target / "model.safetensors").read_bytes() == b"stays"
    assert (target / "tokenizer/vocab.json").samefile(folder / "tokenizer/vocab.json")


def test_files_are_copied_where_links_do_not_work(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link_tree(folder, tmp_path / "target")
    assert (tmp_path / "target/model.safetensors").read_bytes() == b"weights" * 1000
    assert (folder / "model.safetensors").stat().st_nlink == 1
