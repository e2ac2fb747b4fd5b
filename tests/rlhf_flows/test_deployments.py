"""What lies in `deployments/` fits the program: a Prefect project, services for Docker Compose, pipelines."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf_core.errors import RlhfError
from rlhf_flows.cli import cli
from rlhf_flows.server import PrivateServer
from rlhf_flows.workspace import Workspace

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
OURS = {"RLHF_STORE_URL", "RLHF_MLFLOW_URI", "RLHF_WORKSPACE", "RLHF_URL"}
"""Variables that the program reads; the others belong to the file itself."""


def services():
    return yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]


def test_the_prefect_projects_parameters_are_those_of_the_flow():
    from rlhf_flows.served import go_on

    for deployment in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]:
        assert deployment["entrypoint"] == f"{go_on.fn.__module__}.{go_on.fn.__name__}"
        inspect.signature(go_on.fn).bind(**deployment["parameters"])
        assert (ROOT / deployment["parameters"]["pipeline"]).is_file()


@pytest.mark.parametrize("name", ["annotate", "serve"])
def test_the_services_commands_are_commands(name):
    words = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in services()[name]["command"]]
    program, command, *arguments = words
    assert program == "rlhf"
    cli.get_command(None, command).make_context(command, arguments)


def test_the_services_variables_are_read_by_somebody():
    code = "".join(path.read_text() for path in (ROOT / "flows").rglob("*.py"))
    given = {name for service in services().values() for name in service.get("environment", {}) if "RLHF" in name}
    assert given and given <= OURS
    assert all(name in code for name in OURS)


def test_only_the_proxy_can_be_opened_to_others():
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("${RLHF_BIND:-127.0.0.1}:" if name == "tls" else "127.0.0.1:")


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
def test_a_worker_runs_what_the_prefect_project_deploys(prefect_server, tmp_path):
    """Deploy the project with a small pipeline in place of the demo, start a run, let a worker do it."""
    project = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())
    (deployment,) = project["deployments"]
    deployment["parameters"]["pipeline"] = str(ROOT / "tests/rlhf_flows/small.yaml")
    deployment["parameters"]["workspace"] = str(tmp_path / "workspace")
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(project))
    environment = {**os.environ, "PREFECT_API_URL": prefect_server.url, "PREFECT_HOME": str(tmp_path / "home")}

    def prefect(command):
        words = [sys.executable, "-m", "prefect", *shlex.split(command)]
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool create rlhf --type process")
    prefect("--no-prompt deploy --all --prefect-file prefect.yaml")
    prefect("deployment run retrain-on-feedback/newsroom")
    prefect("worker start --pool rlhf --run-once")
    (run,) = prefect_server.runs("retrain-on-feedback")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert len(list((tmp_path / "workspace" / "reports").glob("*/round-2.html"))) == 1
