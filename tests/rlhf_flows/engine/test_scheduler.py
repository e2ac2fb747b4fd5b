"""What the scheduler does with a graph whose stages do next to nothing: here, in processes beside it, on Dask."""

import os

import pytest

from played_stages import graph, node
from rlhf_core.errors import DataError, PluginError, Waiting


def test_each_stage_gets_what_its_predecessors_gave_and_only_those_are_its_edges(engine):
    waits = engine.run(graph(node("a"), node("b", after=["a"]), node("c", after=["a"]), node("d", after=["b", "c"])))
    assert waits == {}
    assert engine.text("d") == "d(b(a()), c(a()))"
    runs = engine.task_runs()
    ids = {runs[name].id: name for name in "abcd"}
    edges = {name: {ids[each.id] for each in runs[name].task_inputs["inputs"]} for name in "abcd"}
    assert edges == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}
    assert engine.said.ends["1/d"] == ("done", "try 1")
    assert engine.record.written == ["1/a", "1/b", "1/c", "1/d"]


def test_what_is_known_is_not_done_again_and_still_has_its_edges(engine, tmp_path):
    stages = graph(node("a", tally=str(tmp_path / "a")), node("b", after=["a"], tally=str(tmp_path / "b")))
    engine.run(stages)
    engine.run(stages)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "1"
    runs = engine.task_runs()
    assert {name: run.state_name for name, run in runs.items()} == {"a": "Cached", "b": "Cached"}
    assert [each.id for each in runs["b"].task_inputs["inputs"]] == [runs["a"].id]
    assert engine.said.ends["1/b"] == ("cached", "try 1")


def test_a_stage_that_reads_the_store_is_done_each_time(engine, tmp_path):
    stages = graph(
        node("a", cached=False, tally=str(tmp_path / "a")), node("b", after=["a"], tally=str(tmp_path / "b"))
    )
    engine.run(stages)
    engine.run(stages)
    assert (tmp_path / "a").read_text() == "11"
    assert (tmp_path / "b").read_text() == "1"


def test_a_result_without_its_artifact_is_no_result(engine, tmp_path):
    stages = graph(node("a", tally=str(tmp_path / "a")))
    engine.run(stages)
    engine.artifacts.discard(engine.finished["1/a"].result.ref)
    engine.run(stages)
    assert (tmp_path / "a").read_text() == "11"


def test_what_does_not_depend_on_people_is_done_while_they_are_waited_for(engine):
    waits = engine.run(graph(node("asked", people=4), node("told", after=["asked"]), node("beside")))
    assert set(waits) == {"1/asked"}
    assert isinstance(waits["1/asked"], Waiting)
    assert "4 answers" in str(waits["1/asked"])
    assert set(engine.finished) == {"1/beside"}
    assert engine.said.ends["1/asked"][0] == "waits"
    assert engine.task_runs()["asked"].state_name == "Waiting"


def test_a_mistake_ends_the_run_with_its_own_paragraph_and_is_never_tried_again(engine, tmp_path):
    limits = {"evaluate": {"retries": 5, "backoff": 0}}
    with pytest.raises(DataError) as caught:
        engine.run(graph(node("a", mistake="7 is no label.", tally=str(tmp_path / "a"))), stages=limits)
    assert str(caught.value) == "rows.csv:7  7 is no label.\nCorrect the row."
    assert (tmp_path / "a").read_text() == "1"
    assert engine.said.ends["1/a"] == ("failed", "DataError")


def test_a_stage_that_stumbles_is_tried_again_as_often_as_its_limits_say(engine, tmp_path):
    stumbling = graph(node("a", stumbles=2, tally=str(tmp_path / "a")))
    with pytest.raises(RuntimeError, match=r"stumbled the 2\. time"):
        engine.run(stumbling, stages={"evaluate": {"retries": 1, "backoff": 0}})
    (tmp_path / "a").unlink()
    engine.run(stumbling, stages={"evaluate": {"retries": 2, "backoff": 0}})
    assert (tmp_path / "a").read_text() == "111"
    assert engine.said.ends["1/a"] == ("done", "try 3")


def test_a_stage_that_takes_too_long_is_given_up(engine):
    with pytest.raises(TimeoutError):
        engine.run(graph(node("a", sleep=30)), stages={"evaluate": {"timeout": 1}})


def test_a_plugin_that_ends_the_program_ends_its_stage(engine):
    with pytest.raises(PluginError, match=r"ended the program: SystemExit\(3\)"):
        engine.run(graph(node("a", exits=3)))


@pytest.mark.slow
def test_in_processes_stages_run_side_by_side_and_what_they_say_arrives(engine, tmp_path):
    meeting = {"meet": str(tmp_path / "meeting"), "parties": 2, "note": "rows were left out"}
    waits = engine.run(
        graph(node("a"), node("b", after=["a"], **meeting), node("c", after=["a"], **meeting), node("asked", people=2)),
        run_on={"workers": 2},
    )
    assert engine.text("b") == "b(a())"
    pids = {engine.finished[f"1/{name}"].result.info["pid"] for name in "bc"}
    assert len(pids) == 2 and os.getpid() not in pids
    assert engine.said.notes == ["rows were left out"] * 2
    assert str(waits["1/asked"]).startswith("waiting for 2 answers")
    runs = engine.task_runs()
    assert [each.id for each in runs["b"].task_inputs["inputs"]] == [runs["a"].id]


def test_on_dask_a_stage_is_the_same_and_says_the_same(engine):
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    stages = graph(node("a"), node("b", after=["a"], note="rows were left out"), node("asked", people=2))
    waits = engine.run(stages, run_on={"default": {"dask": {"workers": 1}}})
    assert engine.text("b") == "b(a())"
    assert engine.finished["1/b"].result.info["pid"] != os.getpid()
    assert engine.said.notes == ["rows were left out"]
    assert str(waits["1/asked"]).startswith("waiting for 2 answers")
    runs = engine.task_runs()
    assert [each.id for each in runs["b"].task_inputs["inputs"]] == [runs["a"].id]
    with pytest.raises(DataError, match="7 is no label"):
        engine.run(graph(node("bad", mistake="7 is no label.")), run_on={"default": {"dask": {"workers": 1}}})
