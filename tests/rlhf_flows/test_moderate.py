"""`rlhf moderate`: texts in, verdicts out."""

import json

import pytest
from click.testing import CliRunner

from rlhf_flows.cli import cli

RULE = json.dumps({"use": "rule", "rules": [{"name": "rude", "pattern": "(?i)damn|fool", "points": -1, "count": True}]})


def moderate(*arguments, text=None):
    done = CliRunner().invoke(cli, ["moderate", "--by", RULE, *map(str, arguments)], input=text)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done, rows


def test_plain_lines_and_json_are_judged():
    text = 'a fine day\n\n{"text": "Damn fool", "id": 7}\ndamn\n'
    done, rows = moderate("--threshold", 2, "--batch", 2, text=text)
    assert done.exit_code == 0
    assert rows == [
        {"text": "a fine day", "score": 0.0, "flagged": False},
        {"text": "Damn fool", "id": 7, "score": 2.0, "flagged": True},
        {"text": "damn", "score": 1.0, "flagged": False},
    ]


def test_the_threshold_for_a_wanted_precision(tmp_path):
    labels = tmp_path / "labels.jsonl"
    given = [("damn fool damn", True), ("damn fool", True), ("damn", False), ("damn!", True), ("fine", False)]
    labels.write_text("".join(json.dumps({"text": text, "harmful": bad}) + "\n" for text, bad in given))
    texts = tmp_path / "texts.txt"
    texts.write_text("damn\nyou damn fool\n")
    done, rows = moderate(texts, "--labels", labels, "--precision", 0.9, "--criterion", "rude")
    assert "threshold 2: precision 1.000, recall 0.667" in done.stderr
    assert [row["flagged"] for row in rows] == [False, True]
    done, rows = moderate(texts, "--labels", labels, "--precision", 0.7)
    assert [row["flagged"] for row in rows] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "text", "what"),
    [
        (["--threshold", 1], '{"no": 1}\n', "needs a `text`"),
        (["--threshold", 1], "fine\n{broken\n", "standard input:2"),
        (["--threshold", 1, "--criterion", "kind"], "x\n", "no criterion `kind`"),
        ([], "x\n", "--threshold"),
        (["--threshold", 1, "--precision", 0.5], "x\n", "--precision"),
    ],
)
def test_what_is_wrong_is_said(arguments, text, what):
    done, _ = moderate(*arguments, text=text)
    assert done.exit_code == 2
    assert what in done.stderr


def test_a_precision_out_of_reach_is_said(tmp_path):
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"text": "damn", "harmful": false}\n{"text": "fine", "harmful": true}\n')
    done, _ = moderate("--labels", labels, "--precision", 0.9, text="x\n")
    assert done.exit_code == 2 and "no threshold has a precision of 0.9" in done.stderr
    labels.write_text('{"text": "damn"}\n')
    done, _ = moderate("--labels", labels, "--precision", 0.9, text="x\n")
    assert f"{labels}:1" in done.stderr
