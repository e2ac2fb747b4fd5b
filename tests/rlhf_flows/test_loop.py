"""Whole campaigns through the command: killed and resumed, looked at, corrected."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

RLHF = str(Path(sys.executable).with_name("rlhf"))
SMALL = Path(__file__).with_name("small.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
METRICS = {
    "win_rate_vs_warm_start", "win_rate_vs_champion", "gold_score", "proxy_score", "kl", "reward_accuracy",
    "reward_ece",
}  # fmt: skip


def rlhf(*arguments, workspace, check=True):
    command = [RLHF, *map(str, arguments), "--workspace", str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=check, timeout=280)


def printed(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


def plan(workspace):
    rows = printed(rlhf("run", SMALL, "--dry-run", "--json", workspace=workspace))
    return {(row["round"], row["stage"]): row["state"] for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("whole")
    return workspace, printed(rlhf("run", SMALL, "--json", workspace=workspace))


def test_a_campaign_runs_and_says_what_the_design_promises(whole):
    workspace, summary = whole
    assert [done["round"] for done in summary["rounds"]] == [0, 1, 2]
    assert set(summary["rounds"][2]["metrics"]) >= METRICS
    assert summary["rounds"][0]["promoted"]
    compared = printed(rlhf("compare", "--json", workspace=workspace))
    assert compared == summary
    reports = sorted(path.name for path in (workspace / "reports").glob("*/*.html"))
    assert reports == ["campaign.html", "round-0.html", "round-1.html", "round-2.html"]


def test_everything_is_cached_afterwards(whole):
    assert {state for (_, stage), state in plan(whole[0]).items()} == {"cached"}


def test_a_stages_curves_end_in_what_came_of_them(whole):
    client = MlflowClient(f"sqlite:///{whole[0] / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "small")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'optimize (round 2)'")
    for name in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert steps == sorted(set(steps)), name
    assert len(client.get_metric_history(run.info.run_id, "kl")) > 2


def test_from_the_champion_to_the_labels(whole):
    found = printed(rlhf("lineage", "small-policy/3", "--json", workspace=whole[0]))
    assert found["missing"] == ""
    assert found["links"][-1]["policy"]["round"] == 0
    (newest, *_) = found["snapshots"].values()
    assert newest["by_source"] == {"simulated": newest["total"]}
    assert newest["total"] >= 100


@pytest.mark.timeout(600)
def test_killed_in_three_places_the_same_command_ends_in_the_same_weights(whole, tmp_path):
    command = [RLHF, "run", str(SMALL), "--workspace", str(tmp_path), "--json"]
    for stage in ("warm_start", "reward", "optimize"):
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            deadline = time.monotonic() + 120
            while not list((tmp_path / "scratch" / "drafts").glob(f"{stage}-*")):
                assert run.poll() is None, f"ended before {stage}"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.3)
            os.kill(run.pid, signal.SIGKILL)
    summary = printed(rlhf("run", SMALL, "--json", workspace=tmp_path))
    assert [done["policy"] for done in summary["rounds"]] == [done["policy"] for done in whole[1]["rounds"]]


def test_correcting_an_answer_touches_what_depends_on_it_and_nothing_else(whole):
    from rlhf_core.feedback.store import FeedbackStore
    from rlhf_core.splits import split_of
    from rlhf_flows.workspace import Workspace

    workspace = whole[0]
    with FeedbackStore.open(Workspace.open(workspace).store_url) as store:
        late = [
            answer.feedback
            for answer in store.answers()
            if answer.feedback.kind == "comparison"
            and answer.question.samples[0].round == 2
            and split_of(answer.question.prompt) == "train"
        ]
    assert late, "no question of the second round was answered"
    other = "second" if late[0].choice == "first" else "first"
    rlhf("revise", late[0].id, "--set", f"choice={other}", workspace=workspace)
    states = plan(workspace)
    ran = {place for place, state in states.items() if state != "cached"}
    assert {stage for round_, stage in ran if round_ < 2} == set()
    assert {stage for _, stage in ran} == {
        "snapshot", "reward", "optimize", "samples", "evaluate_win_rate", "evaluate_generation", "gate",
    } - ({"snapshot"} if states[2, "snapshot"] == "cached" else set())  # fmt: skip
    assert states[2, "reward"] == "run"


def test_a_withdrawn_annotator_counts_no_longer(whole):
    workspace = whole[0]
    assert "answers withdrawn" in rlhf("withdraw", "simulated-1", "--reason", "a test", workspace=workspace).stdout
    states = plan(workspace)
    assert states[1, "reward"] == "run"
    assert states[1, "answers_simulated_panel"] == "cached"
    assert states[0, "warm_start"] == "cached"
