"""A drawing is read back, following its lines from left to right, and must say what the graph says."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_flows.graph.render.drawing import draw
from rlhf_flows.graph.render.layout import lay_out, layers_of
from rlhf_flows.graph.render.lines import Span

UPWARDS, DOWNWARDS, RIGHTWARDS = set("│└┘├┤┴┼"), set("│┌┐├┤┬┼"), set("─┌└├┬┴┼")


def drawn(needs, labels=None):
    layout = lay_out(needs, layers_of(needs))
    labels = labels or {name: [Span(name)] for name in needs}
    return ["".join(span.text for span in line) for line in draw(layout, labels)], layout.untied


def read(lines):
    """The edges (giver, taker) that the lines say."""
    width = max(map(len, lines), default=0)
    lines = [line.ljust(width + 2) for line in lines]
    names = [(row, found) for row, line in enumerate(lines) for found in re.finditer(r"\w+", line)]
    begin = {(row, found.start()): found.group() for row, found in names}
    edges = set()
    for row, found in names:
        todo, done = [(row, found.end() + 1, "right")], set()
        while todo:
            place = todo.pop()
            if place in done:
                continue
            done.add(place)
            row, column, way = place
            sign = lines[row][column]
            if sign == " ":
                assert way == "right", "a line that goes up or down ends at a corner"
                if (row, column + 1) in begin and column > found.end() + 1:
                    edges.add((found.group(), begin[row, column + 1]))
                continue
            if sign in RIGHTWARDS:
                todo.append((row, column + 1, "right"))
            if sign in UPWARDS and way != "down":
                todo.append((row - 1, column, "up"))
            if sign in DOWNWARDS and way != "up":
                todo.append((row + 1, column, "down"))
    return edges


def edges_of(needs):
    return {(giver, taker) for taker, given in needs.items() for giver in given}


CASES = {
    "chain": {"a": (), "b": ("a",), "c": ("b",)},
    "fan": {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")},
    "all to all": {"a": (), "b": (), "c": ("a", "b"), "d": ("a", "b"), "e": ("a", "b"), "f": ("c", "d", "e")},
    "more for one": {"a": (), "b": (), "c": ("a",), "d": ("a", "b"), "e": ("a",)},
    "past a layer": {"a": (), "b": ("a",), "c": ("b",), "d": ("a",), "e": ("c", "d"), "f": ("a",), "g": ("e", "f")},
    "two apart": {"a": (), "b": ("a",), "c": ("a",), "x": (), "y": ("x",), "z": ("x",)},
    "from both sides": {"a": (), "b": (), "c": (), "d": ("a", "b"), "e": ("b",), "f": ("b", "c")},
}


@pytest.mark.parametrize("name", CASES)
def test_everything_is_drawn_and_nothing_else(name):
    lines, untied = drawn(CASES[name])
    assert not untied
    assert read(lines) == edges_of(CASES[name])


def test_a_line_that_would_cross_others_is_left_out_and_named():
    needs = {"a": (), "b": (), "c": (), "x": ("a", "b"), "y": ("b", "c"), "z": ("a", "c")}
    lines, untied = drawn(needs)
    assert untied == {("a", "z"), ("c", "z")}
    assert read(lines) == edges_of(needs) - untied


@st.composite
def graphs(draw):
    """Any graph, each node after those that it needs."""
    size = draw(st.integers(1, 14))
    needs = {}
    for i in range(size):
        given = draw(st.sets(st.integers(0, i - 1), max_size=4)) if i else set()
        needs[f"n{i}"] = tuple(f"n{each}" for each in sorted(given))
    return needs


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(0, 3))
def test_any_drawing_says_what_the_graph_says(needs, longer):
    labels = {name: [Span(name + "x" * (longer * (i % 3)))] for i, name in enumerate(needs)}
    lines, untied = drawn(needs, labels)
    called = {name: label[0].text for name, label in labels.items()}
    said = {(called[giver], called[taker]) for giver, taker in edges_of(needs) - untied}
    assert read(lines) == said
    words = re.findall(r"\w+", "\n".join(lines))
    assert sorted(words) == sorted(called.values())


def test_what_meets_three_lines_stands_in_their_middle():
    lines, _ = drawn({"a": (), "b": ("a",), "c": ("a",), "d": ("a",), "e": ("b", "c", "d"), "f": ("e",)})
    assert lines == [
        "a ─┬─ b ─┐",
        "   ├─ c ─┼─ e ─ f",
        "   └─ d ─┘",
    ]


def test_a_wide_name_keeps_the_columns():
    lines, _ = drawn(CASES["fan"], {"a": [Span("数据")], **{name: [Span(name)] for name in "bcd"}})
    assert lines == ["数据 ─┬─ b ─┬─ d", "      └─ c ─┘"]
