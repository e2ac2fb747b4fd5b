import json

from rlhf_flows.graph.render import to_json


def test_a_node_says_all_that_programs_need(second_round):
    document = to_json(second_round)
    assert document["pipeline"] == "chat"
    (only,) = document["rounds"]
    assert only["round"] == 2
    by_name = {node["name"]: node for node in only["nodes"]}
    assert list(by_name) == [state.node.name for state in second_round]
    assert by_name["reward"] == {
        "id": "2/reward",
        "name": "reward",
        "stage": "reward",
        "gives": "reward",
        "plugins": [
            {"role": "reward", "kind": "reward_models", "use": "pairwise", "options": {"epochs": 2}},
            {
                "role": "policy", "kind": "policies", "use": "causal_lm",
                "options": {"model": "starter", "max_new_tokens": 64},
            },
        ],
        "inputs": {
            "snapshot": {"node": "2/snapshot", "kind": "snapshot"},
            "base": {"node": "0/warm_start", "kind": "policy"},
            "previous": {"node": "1/reward", "kind": "reward"},
        },
        "predecessors": ["0/warm_start", "1/reward", "2/snapshot"],
        "state": "after",
        "key": "",
        "why": "plugins/rlhf_plugins/reward_models/pairwise.py changed since it was computed",
        "runs_on": "",
        "result": "",
    }  # fmt: skip


def test_edges_that_drawings_leave_out_are_in_it(second_round):
    nodes = {node["name"]: node for node in to_json(second_round)["rounds"][0]["nodes"]}
    assert nodes["optimize"]["predecessors"] == ["0/data", "0/warm_start", "1/optimize", "2/reward"]


def test_it_is_json_without_secrets(start, second_round):
    text = json.dumps(to_json([*second_round, *start]), allow_nan=False)
    assert [each["round"] for each in json.loads(text)["rounds"]] == [0, 2]
    for secret in ("hunter2", "sk-1", "T0/B0/abc"):
        assert secret not in text
    assert "https://***@judge.example/v1" in text and "https://hooks.slack.com/***" in text


def test_nothing():
    assert to_json([]) == {"pipeline": "", "rounds": []}
