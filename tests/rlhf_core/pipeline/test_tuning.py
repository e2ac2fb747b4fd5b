"""`tune:` in a pipeline file: what is refused, where, and in which words."""

from __future__ import annotations

import importlib.util

import pytest
import yaml

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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("schedul.peak", "`schedul`: unknown field; did you mean `schedule`?"),
        ("schedule.paek", "unknown field; did you mean `peak`?"),
        ("epochs.first", "`reward` has no fields at `epochs`"),
    ],
)
def test_a_misspelt_name_within_a_name(load, name, said):
    assert error_of(load, f"{name}: {{low: 0.1, high: 0.4}}").startswith(f"{LAST}{name}: {said}")


def test_a_field_of_a_section_that_is_not_written(load):
    assert load("schedule.peak: {low: 0.1, high: 0.4}").pipeline.tune is not None


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
    assert with_values(use, {"lora.r": 4, "lora.alpha": 8}).options["lora"] == {"r": 4, "alpha": 8}
    for wrong, way in [
        ("members.2.epochs", "members.2"),
        ("members.x.epochs", "members.x"),
        ("copies.x.y", "copies.x"),
        ("members.0", "members"),
    ]:
        with pytest.raises(KeyError) as error:
            with_values(use, {wrong: 1})
        assert error.value.args == (way,)


def test_editors_know_the_section():
    schema = pipeline_schema(Registry())
    tune = schema["$defs"]["pipeline.Tune"]
    assert {"space", "trials", "metric", "pruner", "rounds"} == set(tune["properties"])
    assert "trial is judged by" in tune["properties"]["metric"]["description"]


@pytest.fixture(scope="module")
def editor():
    """Whether an editor accepts one name in the space of a reward model."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = pipeline_schema(Registry())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    rest = {"pipeline": "p", "data": [{"use": "newsroom"}], "policy": {"use": "causal_lm", "model": "starter"}}
    rest |= {"optimize": {"use": "ppo"}, "evaluate": [{"use": "win_rate"}], "gate": {"use": "better"}}

    def accepts(reward, name):
        tune = {"space": {name: {"low": 0.1, "high": 0.2}}}
        return not list(validator.iter_errors(rest | {"reward": reward, "tune": tune}))

    return accepts


ENSEMBLE = {"use": "ensemble", "members": [{"use": "pairwise"}]}


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        ({"use": "feed_forward"}, "lr"),
        ({"use": "rlhf-pipeline/feed_forward"}, "hidden"),
        (ENSEMBLE, "copies"),
        (ENSEMBLE, "members.0.lr"),
        (ENSEMBLE, "members.11.features"),
        ({"use": "ensemble", "members": [ENSEMBLE]}, "members.0.members.0.lr"),
    ],
)
def test_editors_know_the_names_in_the_space(editor, reward, name):
    assert editor(reward, name)


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        ({"use": "feed_forward"}, "lrr"),
        ({"use": "feed_forward"}, "lr.x"),
        (ENSEMBLE, "lr"),
        (ENSEMBLE, "member.0.lr"),
        (ENSEMBLE, "members.lr"),
        (ENSEMBLE, "members.0.lrr"),
        (ENSEMBLE, "members.0.lr.x"),
    ],
)
def test_editors_refuse_other_names(editor, reward, name):
    assert not editor(reward, name)


def test_editors_know_the_sections_of_a_reward_model():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(pipeline_schema(stub_registry()))
    pipeline = yaml.safe_load(PIPELINE)
    for name, right in [("schedule.peak", True), ("schedule.paek", False), ("epochs.peak", False)]:
        tune = {"space": {name: {"low": 0.1, "high": 0.2}}}
        assert (not list(validator.iter_errors(pipeline | {"tune": tune}))) is right


def test_whole_numbers_stay_whole():
    assert Span(low=8, high=64).examples() == [8, 64]
    assert Span.model_validate({"low": "1e-4", "high": "1e-2"}).examples()[0] == 1e-4
