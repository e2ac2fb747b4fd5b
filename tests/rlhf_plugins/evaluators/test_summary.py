"""What `summary` says of headlines and summaries, by hand and on people's own summaries."""

import json
import random

import pytest
from click.testing import CliRunner

from rlhf_core.errors import DataError
from rlhf_core.plugins import EvaluateJob
from rlhf_core.records import Prompt, Sample
from rlhf_flows.cli import cli
from rlhf_plugins.evaluators._extraction import coverage, density, fragments, new_numbers, novelty
from rlhf_plugins.evaluators.summary import Summary

SOURCE = tuple("the council met on monday and approved the new tram line for 27 million".split())  # noqa: SIM905


@pytest.mark.parametrize(
    ("summary", "lengths"),
    [
        ("council approved new tram line", [1, 1, 3]),
        ("approved the new tram line", [5]),
        ("the new council", [2, 1]),
        ("zoo closes", []),
        ("", []),
        ("million million", [1, 1]),
    ],
)
def test_fragments_by_hand(summary, lengths):
    assert fragments(SOURCE, summary.split()) == lengths


def test_the_longest_run_counts_wherever_it_begins():
    assert fragments(["a", "a", "a", "b"], ["a", "a", "b"]) == [3]
    assert fragments(["a", "b", "c", "x", "a", "b", "c", "d"], ["a", "b", "c", "d"]) == [4]


def test_coverage_density_and_novelty_by_hand():
    summary = ["council", "approved", "new", "tram", "line", "today"]
    assert coverage(SOURCE, summary) == pytest.approx(5 / 6)
    assert density(SOURCE, summary) == pytest.approx((1 + 1 + 9) / 6)
    # Of (council approved) (approved new) (new tram) (tram line) (line today) the source has two.
    assert novelty(SOURCE, summary) == pytest.approx(3 / 5)
    assert (coverage(SOURCE, []), density(SOURCE, []), novelty(SOURCE, ["council"])) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_copied_piece_is_one_fragment_and_strange_words_are_none(seed):
    rng = random.Random(seed)
    source = [str(rng.randrange(12)) for _ in range(40)]
    start = rng.randrange(30)
    piece = source[start : start + rng.randrange(1, 10)]
    assert fragments(source, piece) == [len(piece)]
    assert density(source, piece) == len(piece)
    strange = ["x" if rng.random() < 0.5 else word for word in piece]
    assert sum(fragments(source, strange)) == len(strange) - strange.count("x")


def test_numbers_that_the_source_does_not_have():
    assert new_numbers(SOURCE, ["27", "million", "for", "3", "trams", "and", "3", "lines", "in", "2031"]) == 2
    assert new_numbers(SOURCE, ["27", "million"]) == 0


def evaluate(cases, **options):
    """`cases` are (prompt, answers)."""
    prompts = [Prompt(text=text) for text, _ in cases]
    samples = [
        [Sample(prompt_id=prompt.id, text=answer) for answer in answers]
        for prompt, (_, answers) in zip(prompts, cases, strict=True)
    ]
    job = EvaluateJob(prompts, {"challenger": samples}, policy=None, reference=None, reward=None, gold=None)
    return Summary(**options).evaluate(job).metrics


def test_metrics_by_hand():
    story = "Story: The council approved 27 trams, and the zoo a lion.\nHeadline:"
    found = evaluate(
        [(story, ["Council approved trams!", "Zoo: 3 lions"]), (story, [""])],
        source=r"(?s)Story: (.*)\nHeadline:", max_words=2,
    )  # fmt: skip
    assert set(found) == Summary.produces(Summary.Config())
    # Ten words in the source; 3 words, of which `council approved` and `trams` are runs; 3 words, `zoo` alone.
    assert found["summary_words"].value == pytest.approx((3 + 0) / 2)
    assert found["summary_compression"].value == pytest.approx((10 / 3 + 10) / 2)
    assert found["summary_coverage"].value == pytest.approx(((1 + 1 / 3) / 2 + 0) / 2)
    assert found["summary_density"].value == pytest.approx((((4 + 1) / 3 + 1 / 3) / 2 + 0) / 2)
    assert found["summary_novelty"].value == pytest.approx(((1 / 2 + 1) / 2 + 0) / 2)
    assert found["summary_supported_numbers"].value == pytest.approx((1 / 2 + 1) / 2)
    assert found["summary_fits"].value == 0
    assert found["summary_coverage"].n == 2


def test_chinese_is_measured_by_character():
    found = evaluate([("市政府批准电车", ["市政府否决电车"])])
    assert found["summary_coverage"].value == pytest.approx(5 / 7)
    assert found["summary_density"].value == pytest.approx((9 + 4) / 7)


def test_a_prompt_without_a_source_is_an_error():
    with pytest.raises(DataError, match=r"'Write something' has no source.*") as error:
        evaluate([("Write something", ["x"])], source="Story: (.*)")
    assert "summary.source" in error.value.remedy
    with pytest.raises(DataError, match="no answers"):
        evaluate([("Story", [])])
    for wrong in ("Story: .*", "("):
        with pytest.raises(ValueError, match=r"needs a group|no regular expression"):
            Summary.Config(source=wrong)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Summary)


@pytest.mark.real_data
def test_people_sum_up_their_own_dialogue(real, tmp_path):
    """Through the command: people's summaries are made of their dialogue, and much less of somebody else's."""
    path = real("dialogsum") / "dialogsum.dev.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {}
    for name, shift in (("own", 0), ("other", 1)):
        table = tmp_path / f"{name}.jsonl"
        pairs = [(row["dialogue"], rows[(i + shift) % len(rows)]["summary"]) for i, row in enumerate(rows)]
        table.write_text("\n".join(json.dumps({"prompt": a, "text": b}) for a, b in pairs))
        done = CliRunner().invoke(cli, ["evaluate", "summary", "--predictions", str(table), "--json"])
        assert done.exit_code == 0, done.output
        found[name] = json.loads(done.output)["metrics"]
    own, other = found["own"], found["other"]
    assert own["summary_coverage"]["low"] > other["summary_coverage"]["high"] + 0.1
    assert own["summary_density"]["low"] > other["summary_density"]["high"]
    assert own["summary_novelty"]["high"] < other["summary_novelty"]["low"]
    assert own["summary_supported_numbers"]["low"] > other["summary_supported_numbers"]["high"]
