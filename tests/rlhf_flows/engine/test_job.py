"""What a worker on another machine is told, and where it finds a campaign's things."""

import pytest

from played_stages import node
from rlhf_core.errors import PluginError, WorkspaceError
from rlhf_core.plugins.registry import Registry
from rlhf_flows.engine.job import Job, Place, Tracked, server_variables
from rlhf_flows.engine.worker import _expect_same_code
from rlhf_flows.graph.keys import ingredients, key_of
from rlhf_flows.workspace import Workspace

VARIABLES = ("RLHF_STORE_URL", "RLHF_MLFLOW_URI", "RLHF_ARTIFACTS", "RLHF_WORKSPACE")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def job(tmp_path):
    stage = node("a", text="hello")
    found = ingredients(stage, {}, {}, Registry())
    place = Place(workspace=str(tmp_path), artifacts="s3://team/rlhf")
    return Job(
        node=stage, key=key_of(stage, found), ingredients=found, place=place,
        tracked=Tracked(parent="1", root="2", key="k"),
    )  # fmt: skip


def test_a_job_is_plain_json(job):
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_where_the_workspaces_folder_is_there_it_is_used(tmp_path):
    Workspace.open(tmp_path / "shared")
    place = Place(workspace=str(tmp_path / "shared"), artifacts="s3://team/rlhf")
    assert place.here() == Workspace(tmp_path / "shared", "s3://team/rlhf")


def test_elsewhere_a_worker_has_a_folder_of_its_own_and_asks_the_servers(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_STORE_URL", "postgresql://team@db/rlhf")
    monkeypatch.setenv("RLHF_MLFLOW_URI", "http://mlflow:5000")
    monkeypatch.setenv("RLHF_WORKSPACE", str(tmp_path / "own"))
    here = Place(workspace="/nowhere/at/all", artifacts="s3://team/rlhf").here()
    assert here.folder == tmp_path / "own"
    assert here.artifacts_root == "s3://team/rlhf"
    assert here.store_url == "postgresql://team@db/rlhf"
    assert here.mlflow_store == "http://mlflow:5000"


def test_elsewhere_without_servers_it_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("RLHF_STORE_URL", "postgresql://team@db/rlhf")
    with pytest.raises(WorkspaceError, match="does not see the workspace") as caught:
        Place(workspace="/nowhere/at/all", artifacts="").here()
    assert all(name in caught.value.remedy for name in ("RLHF_STORE_URL", "RLHF_MLFLOW_URI", "RLHF_ARTIFACTS"))


def test_a_worker_with_other_code_than_the_run_stops_with_one_sentence(job):
    _expect_same_code(job, {}, Registry())
    other = {**job.ingredients["code"], "rlhf_core/rl/losses.py": "0" * 64}
    changed = job.model_copy(update={"ingredients": {**job.ingredients, "code": other}})
    with pytest.raises(PluginError, match=r"other code than the run: rlhf_core/rl/losses\.py\.") as caught:
        _expect_same_code(changed, {}, Registry())
    assert "restart workers" in caught.value.remedy


def test_a_worker_without_the_runs_servers_says_so_instead_of_using_files(job, monkeypatch):
    monkeypatch.setenv("RLHF_STORE_URL", "postgresql://team@db/rlhf")
    assert server_variables() == ("RLHF_STORE_URL",)
    told = job.model_copy(update={"variables": server_variables()})
    told.expect_servers()
    monkeypatch.delenv("RLHF_STORE_URL")
    with pytest.raises(WorkspaceError, match="does not know the servers that the run uses: RLHF_STORE_URL not set"):
        told.expect_servers()
