"""The Prefect projects in `deployments/` fit the flows, and a worker runs what they deploy."""

import importlib
import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf_core.errors import RlhfError
from rlhf_flows.server import PrivateServer
from rlhf_flows.workspace import Workspace

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "deployments/prefect.yaml", ROOT / "deployments/kubernetes/prefect.yaml"]


def flow_at(entrypoint):
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_projects_parameters_are_those_of_its_flows(project):
    deployments = yaml.safe_load(project.read_text())["deployments"]
    assert {deployment["entrypoint"].rpartition(".")[2] for deployment in deployments} == {"loop", "collect", "retrain"}
    for deployment in deployments:
        flow = flow_at(deployment["entrypoint"])
        inspect.signature(flow.fn).bind(**deployment["parameters"])
        flow.validate_parameters(deployment["parameters"])


def test_the_process_pools_pipeline_is_there():
    for deployment in yaml.safe_load(PROJECTS[0].read_text())["deployments"]:
        assert (ROOT / deployment["parameters"]["pipeline"]).is_file()


def test_the_kubernetes_pools_pipeline_is_in_the_image():
    assert "COPY deployments/pipelines /project\n" in (ROOT / "deployments/Dockerfile").read_text()
    project = yaml.safe_load(PROJECTS[1].read_text())
    assert project["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "/project"}}]
    for deployment in project["deployments"]:
        folder, name = os.path.split(deployment["parameters"]["pipeline"])
        assert folder == "/project"
        assert (ROOT / "deployments/pipelines" / name).is_file()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_one_run_of_a_deployment_at_a_time(project):
    for deployment in yaml.safe_load(project.read_text())["deployments"]:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_a_prefect_api_that_is_away_is_said_so(tmp_path, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        PrivateServer(Workspace.open(tmp_path)) as server,
        pytest.raises(RlhfError, match="does not answer"),
        server.answering(),
    ):
        pass


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_elsewhere_runs_what_the_prefect_project_deploys(prefect_server, tmp_path):
    """Deploy the project with a small pipeline, start runs, and let a worker in another folder do them."""
    project = yaml.safe_load(PROJECTS[0].read_text())
    for deployment in project["deployments"]:
        deployment["parameters"] = {
            "pipeline": str(ROOT / "tests/rlhf_flows/small.yaml"),
            "workspace": str(tmp_path / "workspace"),
            "overrides": ["rounds=1"],
        }
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(project))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PREFECT_API_URL": prefect_server.url, "PREFECT_HOME": str(tmp_path / "home")}

    def prefect(command, cwd=tmp_path):
        words = [sys.executable, "-m", "prefect", *shlex.split(command)]
        done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool create rlhf --type process")
    prefect("work-pool set-concurrency-limit rlhf 1")
    prefect("--no-prompt deploy --all --prefect-file prefect.yaml")
    for flow in ("loop", "retrain"):
        prefect(f"deployment run {flow}/newsroom")
        prefect("worker start --pool rlhf --run-once", cwd=elsewhere)
        assert {run["state"]["type"] for run in prefect_server.runs(flow)} == {"COMPLETED"}
    reports = {path.name for path in (tmp_path / "workspace" / "reports").glob("*/round-*.html")}
    assert reports == {"round-0.html", "round-1.html", "round-2.html"}  # the last one by `retrain`
