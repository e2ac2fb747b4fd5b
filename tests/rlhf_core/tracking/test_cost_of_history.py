"""What a round asks of MLflow does not grow with the rounds before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.tracking import CHALLENGER, CHAMPION, Origin, Tracker
from rlhf_core.tracking.client import Client

METRICS = {f"metric_{number}": Metric(value=number / 7, low=0.0, high=9.0) for number in range(8)}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, uri: str) -> Iterator[Counter[str]]:
    """Calls of the MLflow client by name, and under `sql` the statements that they lead to."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
    from sqlalchemy import event

    counts: Counter[str] = Counter()
    call = Client.__getattr__

    def counting(self: Client, name: str) -> Any:
        counts[name] += 1
        return call(self, name)

    def executed(*_: object) -> None:
        counts["sql"] += 1

    engines = {store._engine_map[uri] for store in (Tracking, Registry)}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", executed)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Client, "__getattr__", counting)
            yield counts
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", executed)


def one_round(tracker: Tracker, number: int, folder: Path) -> None:
    """What a campaign writes down in a round, in a process of its own: stages, models, verdict, summary."""
    policy, reward = f"{tracker.experiment}-policy", f"{tracker.experiment}-reward"
    campaign = tracker.campaign("c", "campaign", {"seed": 7}, {"rlhf.pipeline": "p"})
    round_run = campaign.child(f"c/{number}", f"round {number}")
    worker = Tracker.at(tracker.uri, tracker.experiment)
    for name in ("reward", "policy"):
        stage = worker.child_of(round_run.run_id, campaign.run_id, f"c/{number}/{name}", name)
        for step in range(3):
            stage.log_metrics({"loss": 1 / (step + 1)}, step)
        stage.log_metric_objects(METRICS, 4)
        stage.finish()
    champion = tracker.models.get(policy, CHAMPION)
    round_run.log_metric_objects(METRICS, number)
    campaign.log_metric_objects(METRICS, number)
    round_run.log_dataset("d" * 64, "feedback", 3, "/snapshot")
    whence = Origin(f"p{number}", number, "c", parent_policy=champion.origin.digest if champion else "")
    tracker.models.log_policy(
        round_run, folder, reward, Origin(f"r{number}", number, "c"), METRICS, kind="reward_model"
    )
    version = tracker.models.log_policy(round_run, folder, policy, whence, METRICS)
    tracker.models.record_gate(version, True, ["better"])
    tracker.models.set_alias(policy, CHALLENGER, version.version)
    tracker.models.set_alias(policy, CHAMPION, version.version)
    campaign.link_model(version, number)
    round_run.finish()
    campaign.finish()


@pytest.mark.parametrize("late", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_a_late_round_asks_as_much_as_the_second(
    late: int, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"history{late}"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("w")
    costs = {}
    for number in range(1, late + 1):
        tracker = Tracker.open(workspace, name)
        _ = tracker.experiment_id
        with counted(monkeypatch, tracker.uri) as counts:
            one_round(tracker, number, folder)
        costs[number] = counts
    assert costs[late] == costs[2]
    assert costs[2]["get_metric_history"] == 0
    assert len(tracker.models.versions(f"{name}-policy")) == late
    campaign = tracker.find("c")
    assert campaign is not None
    history = tracker.client.get_metric_history(campaign.run_id, "metric_3")
    assert [point.step for point in history] == list(range(1, late + 1))

    # The same command once more adds nothing.
    again = Tracker.open(workspace, name)
    one_round(again, late, folder)
    assert len(again.models.versions(f"{name}-policy")) == late
    assert len(again.client.get_metric_history(campaign.run_id, "metric_3")) == late
