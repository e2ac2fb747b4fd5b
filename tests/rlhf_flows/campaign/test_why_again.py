"""Why a stage runs again, from what was noted when it ran last."""

import json

from rlhf_flows.campaign.record import why_again
from rlhf_flows.graph.parts import Standing


def note(made, node):
    """As a run does that computed the node."""
    prepared = made.memory.prepare(node)
    text = json.dumps({"key": prepared.key, "ingredients": prepared.ingredients})
    made.artifacts.write_text(f"memory/{node.pipeline}-{node.round:04}-{node.name}.json", text)


def reward(made):
    return made.campaign.compiler.retrain(1, Standing(0, tuple(made.campaign.asked)))["1/reward"]


def test_it_is_said_what_changed_also_between_campaigns(command):
    first = command().go_on(1)
    assert why_again(first.artifacts, reward(first), first.memory.prepare(reward(first))) == ""
    note(first, reward(first))
    second = command({"reward": {"use": "bt", "epochs": 5}, "seed": 9}).go_on(1)
    why = why_again(second.artifacts, reward(second), second.memory.prepare(reward(second)))
    assert why == (
        "reward.epochs: 2 -> 5; the seed changed; the warm start changed"
    )  # fmt: skip


def test_at_most_three_reasons_and_how_many_more(command):
    first = command().go_on(1)
    node = reward(first)
    note(first, node)
    config = {"use": "bt", "epochs": 5, "rate": 0.5, "stop": "never", "limit": 3}
    other = command({"reward": config}).go_on(1)
    why = why_again(other.artifacts, node, other.memory.prepare(reward(other)))
    assert why == "reward.epochs: 2 -> 5; reward.limit: none -> 3; reward.rate: 0.001 -> 0.5, and 1 more"


def test_a_result_that_is_gone(command):
    made = command().go_on(1)
    note(made, reward(made))
    why = why_again(made.artifacts, reward(made), made.memory.prepare(reward(made)))
    assert why == "its result is gone, or its files were damaged"


def test_a_note_that_cannot_be_read_says_nothing(command):
    made = command().go_on(1)
    note(made, reward(made))
    made.artifacts.write_text("memory/demo-0001-reward.json", '{"key": "rew')
    assert why_again(made.artifacts, reward(made), made.memory.prepare(reward(made))) == ""
