"""`tune:` in a pipeline file: what is refused, where, and in which words."""

from __future__ import annotations

import importlib.util

import pytest

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline import Span
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.json_schema import pipeline_schema
from rlhf_core.pipeline.tuning import with_values
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from stub_plugins import PIPELINE, stub_registry

TUNE = "tune:\n  trials: 3\n  space:\n    "


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(space, text=PIPELINE):
        (tmp_path / "p.yaml").write_text(text + TUNE + space + "\n")
        return load_pipeline("p.yaml", (), registry=stub_registry())

    return load


def error_of(load, space):
    with pytest.raises(PipelineError) as caught:
        load(space)
    return str(caught.value)


LAST = f"p.yaml:{len((PIPELINE + TUNE).splitlines())}  tune.space."


def test_a_space_of_fields_that_exist(load):
    tune = load("epochs: {low: 1, high: 4}").pipeline.tune
    assert tune.space["epochs"].examples() == [1, 4]
    assert tune.trials == 3


def test_a_misspelt_field(load):
    assert error_of(load, "epochss: {low: 1, high: 4}") == LAST + "epochss: unknown field; did you mean `epochs`?"


def test_a_value_that_the_reward_model_refuses(load):
    assert error_of(load, "epochs: {low: 1.5, high: 4}").startswith(LAST + "epochs: should be a valid integer")
    assert error_of(load, "epochs: {low: 1.0, high: 4.0}").startswith(LAST + "epochs: should be a valid integer")
    assert error_of(load, "epochs: {among: [1, many]}").startswith(LAST + "epochs: should be a valid integer")


@pytest.mark.parametrize(
    ("span", "wrong"),
    [
        ("{low: 4, high: 1}", "low (4) should be less than high (1)"),
        ("{low: 0, high: 1, log: true}", "should start above 0"),
        ("{low: 1}", "either `low` and `high`, or `among`"),
        ("{low: 1, high: 2, among: [1]}", "either `low` and `high`, or `among`"),
        ("{lo: 1, high: 2}", "did you mean `low`?"),
    ],
)
def test_a_span_that_is_none(load, span, wrong):
    assert wrong in error_of(load, f"epochs: {span}")


def test_optuna_is_missing(load, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    assert "rlhf-pipeline[tune]" in error_of(load, "epochs: {low: 1, high: 4}")


def test_values_are_put_where_their_names_say():
    use = Use(use="ensemble", copies=2, members=[{"use": "bt"}, {"use": "bt", "epochs": 1}])
    found = with_values(use, {"members.1.epochs": 7, "copies": 3})
    assert found.options == {"copies": 3, "members": [{"use": "bt"}, {"use": "bt", "epochs": 7}]}
    assert use.options["copies"] == 2
    for wrong in ("members.2.epochs", "members.x.epochs", "copies.x.y", "other.0"):
        with pytest.raises(KeyError):
            with_values(use, {wrong: 1})


def test_editors_know_the_section():
    schema = pipeline_schema(Registry())
    tune = schema["$defs"]["pipeline.Tune"]
    assert {"space", "trials", "metric", "rounds"} == set(tune["properties"])
    assert "trial is judged by" in tune["properties"]["metric"]["description"]


def test_whole_numbers_stay_whole():
    assert Span(low=8, high=64).examples() == [8, 64]
    assert Span.model_validate({"low": "1e-4", "high": "1e-2"}).examples()[0] == 1e-4
