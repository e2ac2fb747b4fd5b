import pytest
from rich.cells import cell_len

from rlhf_flows.graph.render import to_rich, to_text
from rlhf_flows.graph.states import NodeState

HEADING = "▶ would run   ▷ would follow   ? waits for people"
NOTES = """
reward runs again: plugins/rlhf_plugins/reward_models/pairwise.py changed since it was computed
A name in parentheses stands for a stage that is drawn elsewhere.
19 edges that longer paths imply are not drawn, such as data (round 0) → snapshot.
"""


def body(text):
    """Everything below the heading."""
    return text.partition("\n")[2]


def test_the_start_is_one_line_that_fans_out(start):
    assert (
        to_text(start, "chat · start", 80)
        == """\
chat · start                                                    ↺ cached
data ↺ ─ warm_start ↺ ─ samples ↺ ─┬─ win_rate ↺
                                   ├─ generation ↺
                                   └─ red_team ↺

7 edges that longer paths imply are not drawn, such as data → samples.
"""
    )


def test_a_round_at_120_columns(second_round):
    text = to_text(second_round, "chat · round 2", 120)
    assert text.startswith("chat · round 2  ") and text.splitlines()[0].endswith(HEADING)
    assert (
        body(text)
        == """\
data (round 0) ─────┬─ questions ▶ ─┬─ people ? ──────────────────────────────┬─ snapshot ▷ ───────────┐
optimize (round 1) ─┘               └─ ai_judge ▷ ────────────────────────────┤  warm_start (round 0) ─┼─ reward ▷ ─ …
                                       questions, people, ai_judge (round 1) ─┘  reward (round 1) ─────┘

(reward) ─ optimize ▷  gpu:4 ─ samples ▷ ─────────────┬─ win_rate ▷ ───┐
                               gold (round 0) ────────┼─ generation ▷ ─┼─ gate ▷ ─ notify ▷
                               samples (rounds 0, 1) ─┴─ red_team ▷ ───┘
"""
        + NOTES
    )


def test_a_round_at_80_columns(second_round):
    text = body(to_text(second_round, "chat · round 2", 80))
    assert text.startswith("""\
data (round 0) ─────┬─ questions ▶ ─ …
optimize (round 1) ─┘

(questions) ─┬─ people ? ──────────────────────────────┐
             └─ ai_judge ▷ ────────────────────────────┼─ snapshot ▷ ─ …
                questions, people, ai_judge (round 1) ─┘

(snapshot) ───────────┐
warm_start (round 0) ─┼─ reward ▷ ─ optimize ▷  gpu:4 ─ samples ▷ ─ …
reward (round 1) ─────┘

(samples) ─────────────┬─ win_rate ▷ ───┐
gold (round 0) ────────┼─ generation ▷ ─┼─ gate ▷ ─ notify ▷
samples (rounds 0, 1) ─┴─ red_team ▷ ───┘
""")  # fmt: skip


def test_a_round_at_200_columns_is_one_drawing(second_round):
    drawing = body(to_text(second_round, "chat · round 2", 200)).partition("\n\n")[0].splitlines()
    assert len(drawing) == 3
    assert drawing[0].startswith("data (round 0) ─────┬─ questions ▶ ─┬─ people ? ─")
    assert drawing[0].endswith("┬─ reward ▷ ─ optimize ▷  gpu:4 ─ samples ▷ ─────────────┬─ win_rate ▷ ───┐")
    assert drawing[1].endswith("┼─ generation ▷ ─┼─ gate ▷ ─ notify ▷")
    assert "(reward)" not in "\n".join(drawing)


def test_a_narrow_terminal_gets_a_list(second_round):
    lines = body(to_text(second_round, "chat · round 2", 50)).splitlines()
    assert "people ?            from: questions" in lines
    at = lines.index("reward ▷            from: snapshot; warm_start")
    assert lines[at + 1].strip() == "(round 0); reward (round 1)"
    assert sum("from:" in line for line in lines) == len(second_round)


@pytest.mark.parametrize("width", [24, 30, 40, 50, 64, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(start, second_round, width):
    known = [state._replace(result="a result of 数据 " + "x" * 90, why="because") for state in start]
    for line in to_text([*known, *second_round], "a title that is as long as titles can be", width).splitlines():
        assert cell_len(line) <= width


def test_several_rounds_stand_one_below_the_other(start, second_round):
    second_round[0] = second_round[0]._replace(why="its prompts changed")
    text = to_text([*second_round, *start], "chat", 120)
    assert text.index("\nround 0\ndata ↺ ─ warm_start ↺") < text.index("\nround 2\ndata (round 0) ──")
    assert "questions (round 2) runs again: its prompts changed" in text


def test_what_changed_is_said_once_for_all_that_it_concerns(start):
    states = [state._replace(why="losses.py changed") for state in start[:2]]
    assert "\ndata, warm_start run again: losses.py changed\n" in to_text(states, "chat", 80)


def test_known_results_stand_below_the_drawing(start):
    states = [start[0]._replace(result="2000 prompts"), start[1]._replace(result="loss 1.2"), *start[2:]]
    assert "\ndata        2000 prompts\nwarm_start  loss 1.2\n" in to_text(states, "chat", 80)


def test_names_are_text(node):
    states = [
        NodeState(node("1/evaluate_[red]a[/red]", "evaluate"), "run", "", runs_on="[bold]"),
        NodeState(node("1/b\x1b[31m\x07\u202e\n", "gate", {"x": "1/evaluate_[red]a[/red]"}), "run", ""),
    ]
    assert "[red]a[/red] ▶  [bold] ─ b ▶\n" in to_text(states, "x", 80)
    assert to_rich(states, "x", 80).plain.rstrip() == to_text(states, "x", 80).rstrip()


def test_what_comes_from_outside_stands_back(second_round):
    text = to_rich(second_round, "chat", 120)
    styles = {text.plain[span.start : span.end].strip(): span.style for span in text.spans}
    assert styles["data (round 0)"] == "dim"
    assert styles["▶"] == "bold cyan" and styles["?"] == "bold yellow"


def test_secrets_in_reasons_and_results_are_masked(start):
    states = [start[0]._replace(why="https://me:hunter2@host/x changed", result="password=hunter2")]
    assert "hunter2" not in to_text(states, "chat", 80)


def test_a_long_campaign_folds_its_history(node):
    kinds = ("questions", "answers_people", "answers_ai_judge", "answers_x")
    history = {f"{kind}_{i}": f"{i}/{kind}" for i in range(1, 30) for kind in kinds}
    states = [
        NodeState(node("30/answers_x", "answers", {"policy": "17/optimize"}), "run", ""),
        NodeState(node("30/snapshot", "snapshot", history | {"new": "30/answers_x"}), "after", ""),
    ]
    assert body(to_text(states, "chat", 100)).splitlines() == [
        "optimize (round 17) ─ x ▶ ──────────────────────────────────────────┬─ snapshot ▷",
        "                      questions, people, ai_judge +1 (rounds 1–29) ─┘",
    ]


def test_nothing_is_a_heading():
    assert to_text([], "chat", 80) == "chat\n"
