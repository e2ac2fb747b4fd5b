from __future__ import annotations

import json

import pytest
import yaml

from rlhf_core.pipeline.json_schema import pipeline_schema
from rlhf_core.plugins.registry import PluginInfo, Registry
from stub_plugins import PIPELINE, Bt, stub_registry

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(pipeline_schema(stub_registry())))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def change(*changes):
    text = PIPELINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (("use: bt", "use: stubs/bt"),),
        (("raters: 5", "judge: {use: bt, epochs: 3}"),),
        (("raters: 5", "judge: null"),),
        (("epochs: 2", "schedule: {peak: 0.1}"),),
        (("gate:", "gold: {use: words}\ngate:"),),
        (("questions: 10", "questions: 10\n  convert: {use: clicked}"),),
        (("use: model\n  model: tiny", "use: balancer"),),
        (("gate:", "steps: [{use: clean, after: data, strictness: 1}, {use: recheck, before: reward}]\ngate:"),),
        (("gate:", "steps: {use: stubs/tell, after: gate}\ngate:"),),
        (("gate:", "run_on: {workers: 2, default: ray, optimize: {ray: {num_gpus: 1, memory: 16GiB}}}\ngate:"),),
        (("gate:", "run_on: {evaluate: {dask: {}}, data: here}\nstages: {answers: {retries: 1}}\ngate:"),),
        (("reward:\n  use: bt\n  epochs: 2\n", "artifacts: s3://team/rlhf\n"),),
    ],
)
def test_accepts(validator, changes):
    assert [error.message for error in validator.iter_errors(change(*changes))] == []


@pytest.mark.parametrize(
    "changes",
    [
        (("questions:", "questionss:"),),
        (("epochs: 2", "epochss: 2"),),
        (("epochs: 2", "epochs: many"),),
        (("epochs: 2", "epochs: 0"),),
        (("use: bt\n", "use: btt\n"),),
        (("use: bt\n", "use: pairs\n"),),  # an annotator is no reward model
        (("use: pairs", "use: crashing"),),
        (("  model: tiny\n", ""),),
        (("raters: 5", "judge: {use: bt, epochz: 3}"),),
        (("raters: 5", "judge: {use: pairs}"),),
        (("epochs: 2", "schedule: {paek: 0.1}"),),
        (("seed: 7", "seed: -1"),),
        (("gate:", "steps: [{use: clean}]\ngate:"),),
        (("gate:", "steps: [{use: clean, after: data, before: reward}]\ngate:"),),
        (("gate:", "steps: [{use: clean, after: dota}]\ngate:"),),
        (("gate:", "steps: [{use: clean, before: data}]\ngate:"),),
        (("gate:", "steps: [{use: clean, after: data, strictnes: 1}]\ngate:"),),
        (("gate:", "steps: [{use: pairs, after: data}]\ngate:"),),
        (("gate:", "run_on: {optimise: here}\ngate:"),),
        (("gate:", "run_on: {optimize: there}\ngate:"),),
        (("gate:", "run_on: {optimize: {ray: {gpus: 1}}}\ngate:"),),
        (("gate:", "stages: {answers: {retries: -1}}\ngate:"),),
    ],
)
def test_refuses(validator, changes):
    assert list(validator.iter_errors(change(*changes)))


def test_carries_docstrings_and_defaults():
    definition = pipeline_schema(stub_registry())["$defs"]["reward_models.stubs.bt"]
    assert definition["description"] == Bt.__doc__
    assert definition["properties"]["epochs"]["description"] == "Passes over the feedback."
    assert definition["properties"]["epochs"]["default"] == 1


def test_names_that_clash_must_be_written_in_full():
    plugins = [*stub_registry().plugins, PluginInfo("reward_models", "bt", "acme", "2.0", "stub_plugins:Ctr")]
    validator = jsonschema.Draft202012Validator(pipeline_schema(Registry(plugins=plugins)))
    assert list(validator.iter_errors(change()))
    assert not list(validator.iter_errors(change(("use: bt", "use: stubs/bt"))))


def test_every_reference_leads_somewhere():
    schema = pipeline_schema(stub_registry())

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                yield from references(item)

    assert {reference.removeprefix("#/$defs/") for reference in references(schema)} <= set(schema["$defs"])
