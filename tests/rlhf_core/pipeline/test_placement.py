import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline import PLACEMENT_FIELDS, STAGES, Pipeline, limits_of, place_of, workers_of
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.placement import Dask, Placement, Ray, RunOn, Stages
from stub_plugins import PIPELINE, stub_registry


def placed(**fields):
    return Placement.model_validate(fields)


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(more):
        Path("p.yaml").write_text(PIPELINE + more)
        return load_pipeline("p.yaml", registry=stub_registry()).pipeline

    return load


def errors(load, more):
    with pytest.raises(PipelineError) as caught:
        load(more)
    return str(caught.value)


def test_every_stage_has_a_place_and_limits():
    assert set(STAGES) == set(RunOn.model_fields) - {"workers", "default"} == set(Stages.model_fields)
    assert set(PLACEMENT_FIELDS) == set(Placement.model_fields) <= set(Pipeline.model_fields)


def test_all_in_this_process_unless_told_otherwise():
    assert {place_of(placed(), stage) for stage in STAGES} == {"here"}
    assert workers_of(placed()) == 1


def test_several_workers_take_every_stage_that_is_not_named():
    several = placed(run_on={"workers": 4, "gate": "here"})
    assert (place_of(several, "evaluate"), place_of(several, "gate")) == ("workers", "here")
    assert workers_of(several) == 4


def test_a_default_place():
    on_ray = placed(run_on={"default": {"ray": {"num_cpus": 2}}, "data": "here"})
    assert place_of(on_ray, "reward") == Ray(num_cpus=2)
    assert place_of(on_ray, "data") == "here"


@pytest.mark.parametrize(("word", "place"), [("ray", Ray()), ("dask", Dask())])
def test_a_cluster_by_its_name_alone(word, place):
    assert place_of(placed(run_on={"optimize": word}), "optimize") == place


def test_what_is_reserved(load):
    pipeline = load(
        "run_on:\n  optimize: {ray: {num_gpus: 4, memory: 16GiB, resources: {a100: 1}}}\n"
        "  evaluate: {dask: {address: tcp://scheduler:8786, resources: {GPU: 1}}}\n"
    )
    assert place_of(pipeline, "optimize") == Ray(num_gpus=4, memory=16 * 2**30, resources={"a100": 1})
    assert place_of(pipeline, "evaluate") == Dask(address="tcp://scheduler:8786", resources={"GPU": 1})


def test_the_environment_names_clusters(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    assert (Ray().cluster(), Dask().cluster()) == ("auto", None)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://s:8786")
    assert (Ray().cluster(), Dask().cluster()) == ("ray://head:10001", "tcp://s:8786")
    assert (Ray(address="auto").cluster(), Dask(address="tcp://t:1").cluster()) == ("auto", "tcp://t:1")
    assert Dask(workers=2).cluster() is None


def test_patience():
    assert limits_of(placed(), "answers") == (2, 5.0, None)
    assert limits_of(placed(), "answers").waits() == [5.0, 10.0]
    assert limits_of(placed(), "steps").retries == 2
    assert {limits_of(placed(), stage).retries for stage in set(STAGES) - {"answers", "steps"}} == {0}
    given = placed(stages={"reward": {"retries": 3, "backoff": 1}, "answers": {"timeout": 60}})
    assert limits_of(given, "reward").waits() == [1, 2, 4]
    assert limits_of(given, "answers") == (2, 5.0, 60)
    assert limits_of(placed(stages={"answers": {"retries": 0}}), "answers").waits() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("run_on: {optimise: here}", "p.yaml:22  run_on.optimise: unknown field; did you mean `optimize`?"),
        ("run_on: {optimize: nowhere}", "run_on.optimize: should be 'here', 'workers', 'ray' or 'dask', not 'nowhere'"),
        ("run_on: {optimize: {ray: {num_gpu: 1}}}", "run_on.optimize.ray.num_gpu: unknown field; did you mean"),
        ("run_on: {optimize: {}}", "run_on.optimize: give either `ray: {...}` or `dask: {...}`"),
        ("run_on: {optimize: {ray: {}, dask: {}}}", "run_on.optimize: give either `ray: {...}` or `dask: {...}`"),
        ("run_on: {data: {dask: {workers: 2, address: a}}}", "run_on.data.dask: give either the `address` of a"),
        ("run_on: {workers: 0}", "run_on.workers: should be greater than or equal to 1, not 0"),
        ("stages: {answer: {}}", "stages.answer: unknown field; did you mean `answers`?"),
        ("stages: {answers: {timeout: 0}}", "stages.answers.timeout: should be greater than 0, not 0"),
        ("artifacts: ''", "artifacts: "),
        ("steps: [{use: clean}]", "steps.0: give the step one place: `after: data`"),
        ("steps: [{use: clean, after: data, before: reward}]", "steps.0: give the step one place"),
        ("steps: [{use: clean, after: dota}]", "steps.0.after: should be 'data', 'collect', 'reward' or 'gate', not"),
        ("steps: [{use: claen, after: data}]", "Did you mean `clean`?"),
        ("steps: [{use: clean, after: data, strictnes: 1}]", "unknown field; did you mean `strictness`?"),
        ("steps: [clean]", "steps.0: should be `{use: NAME, ...}`, not 'clean'"),
    ],
)  # fmt: skip
def test_mistakes(load, more, said):
    assert said in errors(load, more)


def test_one_mistake_in_a_place_is_one_problem(load):
    found = errors(load, "run_on: {optimize: {ray: {num_gpus: -1}}}")
    assert found == "p.yaml:22  run_on.optimize.ray.num_gpus: should be greater than or equal to 0, not -1"


def test_a_wait_that_never_ends_is_refused():
    with pytest.raises(ValidationError):
        placed(stages={"answers": {"backoff": math.inf}})


def test_a_pipeline_with_its_place_survives_json(load):
    pipeline = load(
        "run_on: {workers: 2, optimize: {ray: {memory: 1GiB}}}\nsteps: {use: clean, after: data, strictness: 1}"
    )
    again = Pipeline.model_validate_json(pipeline.model_dump_json())
    assert again == pipeline
    assert place_of(again, "optimize") == Ray(memory=2**30)
    (step,) = again.steps
    assert (step.place, step.use, step.options) == ("after data", "clean", {"strictness": 1})
