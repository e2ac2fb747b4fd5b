"""The example of a flow of one's own, run as its text says, and looked at in Prefect and MLflow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from prefect_api import Api, free_port, until

EXAMPLE = Path(__file__).parents[2] / "examples/own_flow.py"
EDGES = {
    "data": set(),
    "start": {"data"},
    "questions": {"data", "start"},
    "answers": {"questions"},
    "snapshot": {"data", "questions", "answers"},
    "reward_gentle": {"snapshot", "start"},
    "reward_bold": {"snapshot", "start"},
    "average": {"reward_gentle", "reward_bold", "snapshot"},
    "optimize": {"data", "start", "average"},
    "samples_before": {"data", "start"},
    "samples_after": {"data", "optimize"},
    "evaluate": {"data", "start", "optimize", "average", "samples_before", "samples_after"},
    "gate": {"optimize", "evaluate"},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folder of the example's workspace, and the Prefect server that it ran on."""
    workspace, home = tmp_path_factory.mktemp("workspace"), tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = {
        **os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "rlhf_flows.server", str(port), str(os.getpid())], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    api = Api(f"http://127.0.0.1:{port}/api")
    try:
        until(api.alive, 120, "no Prefect server")
        environment["PREFECT_API_URL"] = api.url
        done = subprocess.run(
            [sys.executable, EXAMPLE, workspace], env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield workspace, api, done.stdout, environment
    finally:
        server.terminate()
        server.wait(30)


def names(runs):
    return {run["id"]: run["name"].removesuffix(", round 1") for run in runs}


def test_prefect_draws_the_rounds_edges(ran):
    _, api, _, _ = ran
    (flow_run,) = api.runs("averaged")
    assert flow_run["state_type"] == "COMPLETED" and flow_run["name"] == "averaged round 1"
    runs = api.post("task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}}, limit=100)
    known = names(runs)
    found = {known[run["id"]]: {known[each["id"]] for each in run["task_inputs"]["inputs"]} for run in runs}
    assert found == EDGES


def test_prefect_has_logs_and_results_of_every_stage_the_own_one_too(ran):
    _, api, _, _ = ran
    runs = names(api.post("task_runs/filter", limit=100))
    logs = api.post("logs/filter", limit=200)
    artifacts = api.post("artifacts/filter", limit=200)
    said = {
        runs[line["task_run_id"]] for line in logs if line["task_run_id"] in runs and "MLflow run" in line["message"]
    }
    tables = {runs[each["task_run_id"]] for each in artifacts if each["type"] == "table"}
    assert said == tables == set(EDGES)
    (table,) = (each for each in artifacts if each["key"] == "averaged-average-results")
    assert "reward_accuracy" in table["data"] and "MLflow run" in table["description"]


def test_mlflow_has_the_stages_below_the_round_below_the_flow(ran):
    workspace, *_ = ran
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name == "averaged")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    flow, round_ = runs["averaged seed 3"], runs["round 1"]
    assert flow.data.params["reward_bold.reward.lr"] == "0.001"
    assert flow.data.params["average.reward.use"] == "ensemble"
    assert "reward_models/pairwise" in flow.data.tags["rlhf.plugins"]
    assert round_.data.tags["mlflow.parentRunId"] == flow.info.run_id
    stages = {name for name, run in runs.items() if run.data.tags.get("mlflow.parentRunId") == round_.info.run_id}
    assert stages == {f"{name} (round 1)" for name in EDGES}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert flow.data.metrics["win_rate_vs_champion"] == round_.data.metrics["win_rate_vs_champion"]
    assert "graph.json" in [each.path for each in client.list_artifacts(round_.info.run_id)]


def test_the_same_program_again_does_nothing_again(ran):
    workspace, _, said, environment = ran
    again = subprocess.run(
        [sys.executable, EXAMPLE, workspace], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert again.stdout.splitlines()[-1] == said.splitlines()[-1] == "keep the policy as it is"
    stages = [line for line in again.stdout.splitlines() if "↺" in line]
    assert len(stages) == len(EDGES) - 1  # the snapshot is taken anew, since people may have answered


@pytest.mark.slow
def test_two_processes_beside_it_come_to_the_same_weights(ran, tmp_path):
    workspace, _, _, environment = ran
    site = tmp_path / "site.yaml"
    site.write_text("run_on: {workers: 2}")
    again = subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "other"], env={**environment, "RLHF_SITE": str(site)}, check=True,
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert "average (worker) ✔" in again.stdout
    weights = [
        {path.relative_to(folder): path.read_bytes() for path in (folder / "artifacts").rglob("*.safetensors")}
        for folder in (workspace, tmp_path / "other")
    ]
    assert weights[0] and weights[0] == weights[1]


def test_the_example_is_short_and_importing_it_runs_nothing():
    assert len(EXAMPLE.read_text().splitlines()) < 80
    spec = importlib.util.spec_from_file_location("example_of_a_flow", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.main)
