"""Nodes and graphs as plain data."""

import pytest

from rlhf_core.plugins import Use
from rlhf_flows.graph.draft import Draft, named
from rlhf_flows.graph.node import Graph, Input, Node, Role, in_order, node_seed


def node(identity, *takes, **changes):
    return Node(
        id=identity, name=identity.partition("/")[2], stage="work", body="a.b:c", title="work", gives="thing",
        pipeline="demo", inputs={f"i{n}": Input(node=name, kind="thing") for n, name in enumerate(takes)}, **changes,
    )  # fmt: skip


def test_a_graph_finds_its_nodes_and_what_comes_from_outside():
    graph = Graph(pipeline="demo", round=2, nodes=(node("2/a", "1/z", "0/y"), node("2/b", "2/a", "1/z")))
    assert graph["2/b"].predecessors == ("1/z", "2/a")
    assert "2/a" in graph and "1/z" not in graph
    assert [given.node for given in graph.outside()] == ["0/y", "1/z"]
    with pytest.raises(KeyError):
        graph["1/z"]


def test_nodes_come_after_those_that_they_need():
    nodes = {each.id: each for each in (node("1/c", "1/b"), node("1/b", "1/a", "0/x"), node("1/a"), node("1/d"))}
    assert [each.id for each in in_order(nodes)] == ["1/a", "1/d", "1/b", "1/c"]


def test_a_circle_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="circle: 1/a, 1/b"):
        in_order({"1/a": node("1/a", "1/b"), "1/b": node("1/b", "1/a"), "1/c": node("1/c")})


def test_plugins_are_found_by_role_in_order():
    roles = [Role(role=role, kind="steps", use=Use(use=name)) for role, name in (("a", "x"), ("b", "y"), ("a", "z"))]
    found = node("1/a", plugins=tuple(roles))
    assert [use.use for use in found.of_role("a")] == ["x", "z"]
    assert found.of_role("c") == ()


def test_seeds_have_31_bits_and_differ():
    seeds = {node_seed(seed, name, round_) for seed in range(20) for name in ("a", "b") for round_ in range(5)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_draft_leaves_out_what_is_none():
    draft = Draft("demo", 3, 1)
    made = draft.add("a_b", "learn:fit", "reward", plugins=[None], inputs={"x": None, "y": Input(node="0/y", kind="k")})
    (added,) = draft.graph()
    assert made == Input(node="1/a_b", kind="reward")
    assert (added.title, added.stage, added.body) == ("a b", "a_b", "rlhf_flows.stages.learn:fit")
    assert list(added.inputs) == ["y"] and added.plugins == ()
    assert added.seed == node_seed(3, "a_b", 1)


def test_stages_of_plugins_with_one_name_have_names_of_their_own():
    uses = [Use(use=name) for name in ("a_2", "acme/a", "a", "other/a")]
    assert [name for name, _ in named("eval", uses)] == ["eval_a_2", "eval_a", "eval_a_2_2", "eval_a_3"]
    assert [use for _, use in named("eval", uses)] == uses
