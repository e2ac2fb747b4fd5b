from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_flows.graph.node import Input, Node
from rlhf_flows.graph.render.shape import shape_of
from rlhf_flows.graph.states import NodeState, by_round


def labels(shape):
    return [vertex.label for vertex in shape.vertices.values()]


def edges(shape):
    return {
        (shape.vertices[giver].label, shape.vertices[taker].label)
        for taker, given in shape.needs.items()
        for giver in given
    }


def reachable(needs, name):
    return set(needs.get(name, ())).union(*(reachable(needs, each) for each in needs.get(name, ())))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), max_size=4), min_size=1, max_size=9))
def test_the_fewest_edges_that_say_the_same(chosen):
    needs = {f"1/n{i}": sorted(f"1/n{each}" for each in given if each < i) for i, given in enumerate(chosen)}
    states = [
        NodeState(
            Node(
                id=name, name=name[2:], stage="x", body="a:b", title="x", gives="x", pipeline="p", round=1,
                inputs={each: Input(node=each, kind="x") for each in given},
            ),
            "run", "",
        )
        for name, given in needs.items()
    ]  # fmt: skip
    shape = shape_of(states)
    for name, drawn in shape.needs.items():
        assert reachable(shape.needs, name) == reachable(needs, name)
        for each in drawn:
            assert not any(each in reachable(needs, other) for other in drawn)
    assert len(shape.implied) == sum(map(len, needs.values())) - sum(map(len, shape.needs.values()))


def test_results_of_earlier_rounds_that_feed_the_same_are_one(second_round):
    shape = shape_of(second_round)
    assert {label for label in labels(shape) if "round" in label} == {
        "data (round 0)", "optimize (round 1)", "questions, people, ai_judge (round 1)", "warm_start (round 0)",
        "reward (round 1)", "gold (round 0)", "samples (rounds 0, 1)",
    }  # fmt: skip
    assert ("samples (rounds 0, 1)", "win_rate") in edges(shape)
    assert ("data (round 0)", "optimize") in shape.implied
    assert ("data (round 0)", "optimize") not in edges(shape)


def test_an_earlier_round_that_is_shown_too_is_not_outside(start, second_round):
    shape = shape_of([*start, *second_round])
    assert ("warm_start", "reward") in edges(shape)
    assert "data (round 0)" not in labels(shape)


def test_names_lose_their_stage_where_that_is_clear(node):
    def named(*nodes):
        return labels(shape_of([NodeState(each, "run", "") for each in nodes]))

    people = node("1/answers_people", "answers")
    assert named(people, node("1/evaluate_acme/rubric", "evaluate")) == ["people", "acme/rubric"]
    assert named(people, node("1/evaluate_people", "evaluate")) == ["answers_people", "evaluate_people"]
    assert named(people, node("2/answers_people", "answers")) == ["people", "people"]
    assert named(node("1/evaluate_reward", "evaluate"), node("1/reward", "reward")) == ["evaluate_reward", "reward"]


def test_the_same_whatever_the_order(second_round):
    assert edges(shape_of(second_round)) == edges(shape_of(second_round[::-1]))


def test_rounds_in_order(start, second_round):
    rounds = by_round([*second_round, *start])
    assert list(rounds) == [0, 2]
    assert rounds[0] == start
