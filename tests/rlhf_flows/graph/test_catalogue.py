"""The catalogue says of each built-in stage what pipelines are compiled to."""

import importlib
from pathlib import Path

import pytest

from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_flows.graph.build import Compiler
from rlhf_flows.graph.catalogue import STAGES
from rlhf_flows.graph.parts import Asked, Standing

FOLDER = Path(__file__).parents[1]


def nodes(path, registry, overrides):
    pipeline = load_pipeline(FOLDER / path, overrides, registry).pipeline
    compiler = Compiler(pipeline, registry)
    asked = tuple(Asked(number, (f"{number}/answers_simulated_panel",)) for number in (1, 2))
    standing = Standing(champion=1, asked=asked)
    return [*compiler.start(), *compiler.collect(2, standing), *compiler.retrain(2, standing)]


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        ("small.yaml", ()),
        ("small_control.yaml", ()),
        ("trust.yaml", ()),
        ("small.yaml", ("tune={space: {epochs: {among: [1, 2]}}, trials: 2}", "gold={use: pairwise}")),
    ],
)
def test_pipelines_compile_to_stages_as_the_catalogue_has_them(path, overrides):
    registry = Registry()
    by_body = {f"rlhf_flows.stages.{stage.body}": stage for stage in STAGES.values()}
    for node in nodes(path, registry, overrides):
        if node.body.endswith("members:fit_member"):
            continue  # a part of the stage `reward`, which flows of one's own add as a whole
        stage = by_body[node.body]
        assert (node.stage, node.gives, node.cached) == (stage.stage, stage.gives, stage.cached), node.id
        roles = {role.role: role.kind for role in node.plugins}
        assert roles.items() <= {name: part.kind for name, part in stage.parts.items()}.items(), node.id
        assert {name for name, part in stage.parts.items() if part.needed} <= set(roles), node.id
        assert set(node.settings) <= set(stage.settings), node.id
        for name, given in node.inputs.items():
            if name.startswith("member_"):
                continue
            known = stage.takes.get(name) or next(
                taken for base, taken in stage.takes.items() if taken.several and name.startswith(f"{base}_")
            )
            assert known.kind in ("*", given.kind), (node.id, name)
        for name, taken in stage.takes.items():
            assert not taken.needed or any(each == name or each.startswith(f"{name}_") for each in node.inputs)


@pytest.mark.parametrize("name", STAGES)
def test_the_body_of_every_stage_is_there(name):
    module, _, function = STAGES[name].body.partition(":")
    assert callable(getattr(importlib.import_module(f"rlhf_flows.stages.{module}"), function))
