"""Pipelines without a reward model, and with steps of their own."""

import pytest

from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.wiring import check
from stub_plugins import PIPELINE, stub_registry

REWARD = "reward:\n  use: bt\n  epochs: 2\n"
ALONE = (
    PIPELINE.replace(REWARD, "")
    .replace("{use: climb}", "{use: listen}")
    .replace("{use: wins}", "{use: lengths}")
    .replace("{use: threshold}", "{use: threshold, metrics: [length]}")
)


@pytest.fixture
def problems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def problems(text, *changes):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "p.yaml").write_text(text)
        return check(load_pipeline("p.yaml", registry=stub_registry()), stub_registry())

    return problems


def test_an_optimizer_that_learns_from_feedback_needs_no_reward(problems):
    assert problems(ALONE) == []


def test_with_a_reward_it_demands_no_feedback(problems):
    rule = REWARD.replace("use: bt\n  epochs: 2", "use: words")
    clicks = (("use: pairs\n      raters: 5", "use: clicks"), ("optimize:", rule + "optimize:"))
    assert problems(ALONE, *clicks) == []


def test_without_one_the_feedback_must_be_of_its_kind(problems):
    (problem,) = problems(ALONE, ("use: pairs\n      raters: 5", "use: clicks"))
    assert problem.where == "p.yaml:14"
    assert problem.what == (
        "optimize: `listen` learns from comparisons, but the only annotator, `clicks` (p.yaml:13), yields reactions."
    )
    assert "Convert them with `ask.convert: {use: clicked}`." in problem.remedy


def test_an_optimizer_that_needs_a_reward(problems):
    (problem,) = problems(ALONE, ("{use: listen}", "{use: climb}"))
    assert problem.where == "p.yaml:15"
    assert problem.what == "optimize: `climb` trains on a reward, and the pipeline has no `reward:`."
    assert problem.remedy == (
        "Add `reward: {use: ...}`. Installed optimizers that learn from the feedback itself: listen."
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("gate:", "tune: {space: {epochs: {among: [1, 2]}}}\ngate:"), "tune: there are no settings to search"),
        (("gate:", "patches: [a.jsonl]\ngate:"), "patches: there is nothing that could get them right"),
        (("questions: 10", "questions: 10\n  measure_selection: true"), "ask.measure_selection: it fits reward models"),
        (("questions: 10", "questions: 10\n  selector: {use: sure}"), "ask.selector: `sure` chooses by the reward"),
        (("{use: lengths}", "{use: lengths}\n  - {use: wins}"), "evaluate.1: `wins` measures by the reward model"),
        (("[length]", "[length, reward_accuracy]"), "gate: `threshold` reads the metric reward_accuracy, which"),
    ],
)  # fmt: skip
def test_what_cannot_do_without_a_reward(problems, change, what):
    (problem,) = problems(ALONE, change)
    assert problem.what.startswith(what)
    assert problem.remedy
    assert problem.where.startswith("p.yaml:")


def test_metrics_of_an_evaluator_that_needs_the_reward_are_of_the_reward(problems):
    found = problems(ALONE, ("{use: lengths}", "{use: lengths}\n  - {use: wins}"), ("[length]", "[length, win_rate]"))
    assert [problem.what.partition(",")[0] for problem in found] == [
        "gate: `threshold` reads the metric win_rate",
        "evaluate.1: `wins` measures by the reward model",
    ]


def test_a_judge_beside_it_measures_without_the_reward(problems):
    gold = ("gate:", "gold: {use: words}\ngate:")
    assert problems(ALONE, ("{use: lengths}", "{use: wins, judge: gold}"), gold, ("[length]", "[win_rate]")) == []


def test_steps_in_their_places(problems):
    steps = (
        "steps:\n  - {use: clean, after: data}\n  - {use: recheck, after: reward}\n  - {use: tell, before: reward}\n"
    )
    assert problems(PIPELINE + steps) == []
    assert problems(PIPELINE + "steps: {use: recheck, after: gate}\n") == []


def test_a_step_that_takes_what_is_not_there_yet(problems):
    (problem,) = problems(PIPELINE + "steps: [{use: recheck, after: data}]")
    assert problem.where == "p.yaml:22"
    assert problem.what == ("steps.0: `recheck` takes `reward` and `snapshot`, and after data there is only `data`.")
    assert problem.remedy == "It could stand `after: gate` or `after: reward`."


def test_a_step_that_gives_what_does_not_stand_there(problems):
    (problem,) = problems(PIPELINE + "steps: [{use: clean, after: collect}]")
    assert problem.what == "steps.0: `clean` gives `data`, and after collect only `snapshot` can be replaced."
    assert problem.remedy == "It could stand `after: data`."


@pytest.mark.parametrize("place", ["before: reward", "after: reward"])
def test_there_is_no_place_at_a_reward_that_is_left_out(problems, place):
    (problem,) = problems(ALONE + f"steps: [{{use: tell, {place}}}]")
    assert "steps.0: `tell` stands" in problem.what
    assert "and the pipeline has no `reward:`." in problem.what
    assert problem.remedy == "Choose another place: `after: collect`, `after: data` or `after: gate`."


def test_without_a_reward_no_step_takes_one(problems):
    (problem,) = problems(ALONE + "steps: [{use: recheck, after: gate}]")
    assert problem.what.startswith(
        "steps.0: `recheck` takes `reward` and `snapshot`, and after gate there are only `data`,"
    )
    assert problem.remedy == "It fits nowhere in this pipeline."


def test_feedback_that_nobody_learns_from_is_never_frozen(problems):
    ask = PIPELINE[PIPELINE.index("ask:") : PIPELINE.index("reward:")]
    rule = PIPELINE.replace(ask, "").replace("use: bt\n  epochs: 2", "use: words")
    (problem,) = problems(rule + "steps: [{use: tell, after: collect}]")
    assert problem.what == "steps.0: `tell` stands after collect, and nothing in the pipeline learns from feedback."
