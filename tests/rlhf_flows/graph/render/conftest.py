"""A campaign's graph as it really is: the start, and the second round."""

import pytest

from rlhf_core.plugins.base import Use
from rlhf_flows.graph.node import Input, Node, Role
from rlhf_flows.graph.states import NodeState

GIVES = {"warm_start": "policy", "optimize": "policy", "gold": "reward", "gate": "decision", "evaluate": "evaluation"}
EVALUATORS = ("win_rate", "generation", "red_team")


def kind_of(name):
    return next((kind for stage, kind in GIVES.items() if name.startswith(stage)), name.split("_")[0])


def make_node(identity, stage, inputs=None, plugins=()):
    number, name = identity.split("/", 1)
    given = {role: Input(node=node, kind=kind_of(node.split("/", 1)[1])) for role, node in (inputs or {}).items()}
    return Node(
        id=identity, name=name, stage=stage, body=f"rlhf_flows.stages.{stage}:work", title=stage, gives=kind_of(name),
        pipeline="chat", round=int(number), plugins=plugins, inputs=given,
    )  # fmt: skip


def role(name, kind, use, **options):
    return Role(role=name, kind=kind, use=Use(use=use, **options))


POLICY = role("policy", "policies", "causal_lm", model="starter", max_new_tokens=64)


@pytest.fixture
def node():
    """Makes a node: `node("1/reward", "reward", {"snapshot": "1/snapshot"})`."""
    return make_node


@pytest.fixture
def start():
    """Data, warm start and its first evaluation; all of it known."""
    inputs = {
        "data": "0/data",
        "policy": "0/warm_start",
        "reference": "0/warm_start",
        "samples_challenger": "0/samples",
    }
    nodes = [
        make_node("0/data", "data", plugins=(role("source", "data_sources", "newsroom", prompts=2000),)),
        make_node("0/warm_start", "warm_start", {"data": "0/data"}, (POLICY,)),
        make_node("0/samples", "samples", {"data": "0/data", "policy": "0/warm_start"}, (POLICY,)),
        *(make_node(f"0/evaluate_{name}", "evaluate", inputs) for name in EVALUATORS),
    ]
    return [NodeState(node, "cached", f"{node.name}-key") for node in nodes]


def collected():
    """Questions and answers; people have not answered yet."""
    questions = make_node("2/questions", "questions", {"data": "0/data", "policy": "1/optimize"}, (POLICY,))
    judge = role("annotator", "annotators", "ai_judge", url="https://me:hunter2@judge.example/v1", token="sk-1")
    snapshot = {
        "data": "0/data", "questions_1": "1/questions", "answers_1_0": "1/answers_people",
        "answers_1_1": "1/answers_ai_judge", "questions_2": "2/questions",
        "answers_2_0": "2/answers_people", "answers_2_1": "2/answers_ai_judge",
    }  # fmt: skip
    return [
        NodeState(questions, "run", "questions-key"),
        NodeState(make_node("2/answers_people", "answers", {"questions": "2/questions"}), "waits", ""),
        NodeState(make_node("2/answers_ai_judge", "answers", {"questions": "2/questions"}, (judge,)), "after", ""),
        NodeState(make_node("2/snapshot", "snapshot", snapshot), "after", ""),
    ]


def retrained():
    """From the reward, whose code changed, to the message about the gate's decision."""
    learnt = {"snapshot": "2/snapshot", "base": "0/warm_start", "previous": "1/reward"}
    improved = {"data": "0/data", "policy": "1/optimize", "reference": "0/warm_start", "reward": "2/reward"}
    evaluated = {
        "data": "0/data", "policy": "2/optimize", "reference": "0/warm_start", "reward": "2/reward", "gold": "0/gold",
        "samples_challenger": "2/samples", "samples_champion": "1/samples", "samples_warm_start": "0/samples",
    }  # fmt: skip
    decided = {"policy": "2/optimize"} | {name: f"2/evaluate_{name}" for name in EVALUATORS}
    reward = make_node("2/reward", "reward", learnt, (role("reward", "reward_models", "pairwise", epochs=2), POLICY))
    ppo = role("optimizer", "optimizers", "ppo", kl={"target": 6.0})
    notify = role("step", "steps", "notify", url="https://hooks.slack.com/services/T0/B0/abc", format="slack")
    changed = "plugins/rlhf_plugins/reward_models/pairwise.py changed since it was computed"
    return [
        NodeState(reward, "after", "", why=changed),
        NodeState(make_node("2/optimize", "optimize", improved, (ppo, POLICY)), "after", "", runs_on="gpu:4"),
        NodeState(
            make_node("2/samples", "samples", {"data": "0/data", "policy": "2/optimize"}, (POLICY,)), "after", ""
        ),
        *(NodeState(make_node(f"2/evaluate_{name}", "evaluate", evaluated), "after", "") for name in EVALUATORS),
        NodeState(make_node("2/gate", "gate", decided), "after", ""),
        NodeState(make_node("2/step_notify", "step", {"decision": "2/gate"}, (notify,)), "after", ""),
    ]


@pytest.fixture
def second_round():
    """A whole round; data, the warm start and the first round's results come from outside."""
    return [*collected(), *retrained()]
