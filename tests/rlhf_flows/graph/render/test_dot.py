import shutil
import subprocess

import pytest

from rlhf_flows.graph.render import to_dot
from rlhf_flows.graph.states import NodeState


def test_a_round(start, second_round):
    lines = to_dot(second_round).splitlines()
    assert lines[0] == 'digraph "chat" {' and lines[-1] == "}"
    assert '  "2/questions" -> "2/answers_people"' in lines
    assert '  "2/questions" -> "2/snapshot"' not in lines  # a longer path says it
    assert any(line.startswith(r'  "2/optimize" [label="optimize ▷\ngpu:4", ') for line in lines)
    assert not any("subgraph" in line for line in lines)
    both = to_dot([*start, *second_round])
    assert both.count("subgraph ") == 2 and 'label="round 0"' in both


def test_names_are_text(node):
    text = to_dot([NodeState(node('1/a"];\\N\n', "gate"), "run", "")])
    assert r'"1/a\"];\\N" [label="a\"];\\N ▶", ' in text


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_draws_it(start, second_round, node):
    odd = NodeState(node('3/a"];\\N <b>&amp;</b> 数\n', "gate", {"x": "2/gate"}), "waits", "", runs_on="x\\")
    for states in (start, second_round, [*start, *second_round, odd], []):
        done = subprocess.run(["dot", "-Tplain"], input=to_dot(states), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
        drawn = sum(line.startswith("node ") for line in done.stdout.splitlines())
        assert drawn >= len(states)


def test_entities_are_text(node):
    assert '[label="&amp;lt; ▶", ' in to_dot([NodeState(node("1/&lt;", "gate"), "run", "")])
