"""The grammar here is the part of mermaid's that `to_mermaid` writes."""

import re

import pytest

from rlhf_flows.graph.render import to_mermaid
from rlhf_flows.graph.render.mermaid import escaped
from rlhf_flows.graph.states import NodeState

LABEL = r'"(?:[^"#<>`;{}\[\]|$\\]|\#\d+;|<br/>)*"'
LINES = re.compile(
    rf"""flowchart\ LR | \s*%%\ [^{{}}]* | \s+subgraph\ \w+\[{LABEL}\] | \s+end | \s+n\d+\ -->\ n\d+
    | \s+n\d+(\[{LABEL}\]|\({LABEL}\)):::(cached|run|after|waits|given)
    | \s+style\ round_\d+\ fill:none,stroke:\#\w{{6}}
    | \s+classDef\ \w+\ fill:\#\w{{6}},stroke:\#\w{{6}},color:\#\w{{6}}(,stroke-dasharray:4\ 3)?""",
    re.VERBOSE,
)

NASTY = [
    '1. "quoted"] --> x', "`md **b** _e_`", "<script>&amp;#35;", "end", "fa:fa-car $$x$$", "- list\n%% c", "a;b|c{d}",
    "\x1b[31mred\\n", "日本語", "1) y", "___", "# h",
]  # fmt: skip


def test_a_round_is_valid_and_complete(second_round):
    lines = to_mermaid(second_round).splitlines()
    assert lines[0] == "flowchart LR"
    for line in lines:
        assert LINES.fullmatch(line), line
    named = {found[1]: found[2] for line in lines if (found := re.match(r'\s+(n\d+)[\[(]"(.*)"', line))}
    edges = {(named[a], named[b]) for a, b in re.findall(r"(n\d+) --> (n\d+)", "\n".join(lines))}
    assert ("questions ▶", "people ?") in edges and ("people ?", "snapshot ▷") in edges
    assert ("samples (rounds 0, 1)", "win_rate ▷") in edges
    assert ("questions ▶", "snapshot ▷") not in edges  # a longer path says it
    assert "optimize ▷<br/>gpu#58;4" in named.values()
    assert "subgraph" not in "\n".join(lines)


def test_each_of_several_rounds_is_a_subgraph(start, second_round):
    text = to_mermaid([*start, *second_round])
    assert all(LINES.fullmatch(line) for line in text.splitlines())
    assert '  subgraph round_0["round 0"]\n    n0["data ↺"]:::cached\n' in text
    assert text.count("subgraph ") == 2 == text.count("\n  end\n  style round_")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_a_label_and_nothing_else(node, name):
    text = to_mermaid([NodeState(node("1/x", "gate", {"a": f"0/{name}"}), "run", "", runs_on=name)])
    assert all(LINES.fullmatch(line) for line in text.splitlines()), text


def test_nothing_is_valid():
    assert all(LINES.fullmatch(line) for line in to_mermaid([]).splitlines())


def test_signs_that_mermaid_looks_for_after_it_has_turned_numbers_back_stand_apart():
    assert escaped("gpu:4") == "gpu#58;4"
    assert escaped("fa:fa-car") == "fa#58;#8288;fa-car"
    assert escaped(r"\n $$x") == "#92;#8288;n #36;#8288;#36;#8288;x"
