"""Stages on Dask and on Ray, whose nodes are processes of their own in other folders."""

import os
import sys
import time

import pytest

from clusters import dask_cluster, ray_cluster
from played_stages import graph, node
from rlhf_core.errors import DataError, RlhfError, ServerError
from rlhf_core.pipeline.placement import Dask, Ray
from rlhf_flows.engine.clusters import DaskCluster, RayCluster

WORKERS = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
"""They find the stages of these tests where this process does."""


@pytest.mark.parametrize(("cluster", "place", "extra"), [(DaskCluster, Dask(), "dask"), (RayCluster, Ray(), "ray")])
def test_a_missing_extra_is_said_in_a_sentence(cluster, place, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, f"prefect_{extra}", None)
    with pytest.raises(RlhfError, match=f"names {extra}, and the packages for it are not installed") as caught:
        cluster(place)
    assert f'pip install "rlhf-pipeline[{extra}]"' in caught.value.remedy


@pytest.mark.slow
def test_an_unreachable_scheduler_is_said_in_a_sentence():
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    with pytest.raises(ServerError, match="the Dask scheduler cannot be reached") as caught:
        DaskCluster(Dask(address="tcp://127.0.0.1:9"))
    assert caught.value.where == "tcp://127.0.0.1:9"
    assert "DASK_SCHEDULER_ADDRESS" in caught.value.remedy


@pytest.mark.slow
def test_an_unreachable_ray_cluster_is_said_in_a_sentence():
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    with pytest.raises(ServerError, match="the Ray cluster cannot be reached") as caught:
        RayCluster(Ray(address="127.0.0.1:9"))
    assert "RAY_ADDRESS" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dask_workers_in_other_folders_take_what_their_resources_allow_and_may_die(engine, tmp_path):
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    with dask_cluster(tmp_path / "dask", WORKERS, workers=1, resources="GPU=1") as address:
        _dies_once(engine, tmp_path, {"dask": {"address": address, "resources": {"GPU": 1}}})
        with pytest.raises(DataError, match="7 is no label"):
            engine.run(graph(node("bad", mistake="7 is no label.")), run_on={"default": {"dask": {"address": address}}})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_nodes_take_stages_side_by_side_and_their_workers_may_die(engine, tmp_path, monkeypatch):
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    with ray_cluster(WORKERS) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        meeting = {"meet": str(tmp_path / "meeting"), "parties": 2, "note": "rows were left out"}
        stages = graph(node("a"), node("b", after=["a"], **meeting), node("c", after=["a"], **meeting))
        began = time.monotonic()
        engine.run(stages, run_on={"default": "ray"})
        assert engine.text("c") == "c(a())", time.monotonic() - began
        assert engine.said.notes == ["rows were left out"] * 2
        assert len({engine.finished[f"1/{name}"].result.info["pid"] for name in "bc"}) == 2
        runs = engine.task_runs()
        assert [each.id for each in runs["b"].task_inputs["inputs"]] == [runs["a"].id]
        _dies_once(engine, tmp_path, {"ray": {}})
        with pytest.raises(DataError, match="7 is no label"):
            engine.run(graph(node("bad", mistake="7 is no label.")), run_on={"default": "ray"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dask_workers_tell_the_server_of_each_run_of_its_stages(engine, tmp_path):
    """As they serve several runs after each other, each with a server of its own."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with dask_cluster(tmp_path / "dask", WORKERS, workers=1) as address:
        code = "from rlhf_flows.engine.process import report_to; report_to('http://127.0.0.1:9/api')"
        with distributed.Client(address, set_as_default=False) as client:
            client.run(exec, code)
        engine.run(graph(node("a")), run_on={"default": {"dask": {"address": address}}})
        assert engine.task_runs()["a"].state_name == "Completed"


def _dies_once(engine, tmp_path, place):
    """A worker that dies in the middle of a stage is replaced, and the stage is done."""
    engine.run(graph(node("fatal", dies=1, tally=str(tmp_path / "fatal"))), run_on={"default": place})
    assert engine.text("fatal") == "fatal()"
    assert (tmp_path / "fatal").read_text() == "11"
