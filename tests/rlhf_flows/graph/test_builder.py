"""Graphs of one's own: what is filled in, what is refused, and how a function becomes a stage."""

import json

import pytest

from rlhf_core.errors import PipelineError, PluginError
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_flows.graph.builder import GraphBuilder
from rlhf_flows.stages.context import Outcome, StageContext, body_of

POLICY, PAIRWISE = {"use": "causal_lm", "model": "starter"}, {"use": "pairwise", "epochs": 1}


@pytest.fixture
def builder():
    return GraphBuilder("mine", 1, 3, Registry())


@pytest.fixture
def start(builder):
    """Data, a policy, and feedback."""
    data = builder.add("data", plugins={"data": {"use": "newsroom"}})
    policy = builder.add("warm_start", "start", plugins={"policy": POLICY}, data=data)
    return data, policy, builder.add("snapshot", data=data)


def count(context: StageContext) -> Outcome:
    """A stage of one's own."""
    return Outcome(info={"files": len(list(context.need("data").iterdir()))})


def test_a_policy_and_a_reward_model_bring_the_plugins_that_made_them(builder, start):
    data, policy, snapshot = start
    reward = builder.add("reward", plugins={"reward": PAIRWISE}, snapshot=snapshot, base=policy)
    optimized = builder.add("optimize", plugins={"optimizer": "ppo"}, data=data, policy=policy, reference=policy,
                            reward=reward)  # fmt: skip
    node = builder.graph()[optimized.node]
    assert {role.role: role.use for role in node.plugins} == {
        "optimizer": Use(use="ppo"), "policy": Use(**POLICY), "reward": Use(**PAIRWISE),
    }  # fmt: skip
    assert node.predecessors == ("1/data", "1/reward", "1/start")
    assert optimized.kind == "policy" and optimized.use == Use(**POLICY)


def test_a_rule_needs_no_feedback(builder):
    rule = {"use": "rule", "rules": [{"name": "plan", "pattern": "plan"}]}
    assert builder.graph().nodes == ()
    made = builder.add("reward", plugins={"reward": rule})
    assert builder.graph()[made.node].inputs == {} and made.use == Use(**rule)


def test_nodes_are_plain_json_and_a_name_is_a_seed(builder, start):
    _, policy, snapshot = start
    for name in ("one", "other"):
        builder.add("reward", name, plugins={"reward": PAIRWISE}, snapshot=snapshot, base=policy)
    graph = builder.graph()
    assert json.loads(graph.model_dump_json())["nodes"]
    assert graph["1/one"].seed != graph["1/other"].seed
    assert graph["1/one"].stage == graph["1/other"].stage == "reward"
    again = GraphBuilder("mine", 1, 3, Registry())
    data = again.add("data", plugins={"data": {"use": "newsroom"}})
    again.add("warm_start", "start", plugins={"policy": POLICY}, data=data)
    assert again.graph()["1/start"] == graph["1/start"]


def test_several_inputs_of_one_name_are_numbered(builder, start):
    data, policy, _ = start
    asked = builder.add("questions", plugins={"selector": "random"}, data=data, policy=policy)
    panels = {f"answers_{n}": {"use": "simulated_panel", "raters": n} for n in (2, 3)}
    said = [
        builder.add("answers", name, plugins={"annotator": panel}, questions=asked) for name, panel in panels.items()
    ]
    first = builder.add("snapshot", "first", data=data, questions=[asked], answers=said)
    second = builder.add("snapshot", "second", data=data, questions=asked, answers=said[:1])
    nodes = builder.graph()
    assert set(nodes[first.node].inputs) == {"data", "questions_0", "answers_0", "answers_1"}
    # Others who are asked move the moment at which a snapshot is taken.
    assert len(nodes[first.node].settings["asked"]) == 2
    assert nodes[first.node].settings["asked"][:1] == nodes[second.node].settings["asked"]
    assert nodes[asked.node].settings == {"questions": 400, "samples": 4, "prompts": None, "overlap": 1, "seed": 3}


def test_a_function_is_found_again_by_its_name(builder, start):
    data, *_ = start
    counted = builder.add(count, gives="count", settings={"deep": True}, data=data)
    node = builder.graph()[counted.node]
    assert body_of(node) is count
    assert (node.name, node.stage, node.gives, node.settings) == ("count", "steps", "count", {"deep": True})
    named = builder.add("rlhf_flows.stages.data:read_data", "again", gives="data", like="data")
    assert builder.graph()[named.node].stage == "data"


def test_a_function_that_nobody_finds_is_refused(builder):
    with pytest.raises(PipelineError, match="workers find a stage's function by its module and name"):
        builder.add(lambda context: Outcome(), gives="count")
    with pytest.raises(PipelineError, match="should say what kind of artifact it gives"):
        builder.add(count)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("rewards", {}, "no built-in stage called `rewards`; did you mean `reward`"),
        ("reward", {"plugins": {"reward": PAIRWISE}}, "`pairwise` learns from feedback: it needs a `snapshot`"),
        (
            "gold",
            {"plugins": {"gold": PAIRWISE}, "snapshot": 1},
            "it needs `base`, which `warm_start` or `opti",
        ),
        ("samples", {"policy": "start", "data": 2}, "`policy` should be what another stage gave, not 'start'"),
        (
            "samples",
            {"policy": 1, "data": 2},
            "`policy` should be of the kind policy, and stage `snapshot` gives snapshot",
        ),
        ("samples", {"policy": 0, "data": 2, "reward": 2}, "it takes no `reward`"),
        (
            "samples",
            {"policy": 0, "data": 2, "settings": {"prompt": 3}},
            "no setting `prompt`; did you mean `prompts`",
        ),
        ("data", {"name": "more"}, "it needs a plugin as `data`"),
        ("data", {"name": "more", "plugins": {"dta": "newsroom"}}, "no plugin as `dta`; did you mean `data`"),
        ("warm_start", {"data": 2, "plugins": {"policy": [POLICY, POLICY]}}, "it takes one plugin as `policy`, not 2"),
        ("data", {"gives": "data", "plugins": {"data": "newsroom"}}, "are for functions of one's own"),
        ("snapshot", {"data": 2}, "the round has a stage `snapshot` already"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(builder, start, what, options, message):
    data, policy, snapshot = start
    given = {
        name: {0: policy, 1: snapshot, 2: data}[value] if isinstance(value, int) else value
        for name, value in options.items()
    }
    with pytest.raises(PipelineError, match=message):
        builder.add(what, **given)


def test_a_wrong_option_of_a_plugin_is_said_before_anything_runs(builder, start):
    _, policy, snapshot = start
    with pytest.raises(PluginError, match=r"`reward\.0\.members\.0\.epoch`.*did you mean `epochs`") as caught:
        builder.add(
            "reward", plugins={"reward": {"use": "ensemble", "members": [{"use": "pairwise", "epoch": 1}]}},
            snapshot=snapshot, base=policy,
        )  # fmt: skip
    assert "mine, round 1, stage `reward`" in str(caught.value)
    with pytest.raises(PluginError, match="no RewardModel plugin called `pairwize`"):
        builder.add("reward", plugins={"reward": "pairwize"}, snapshot=snapshot, base=policy)
