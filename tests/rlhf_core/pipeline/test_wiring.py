from __future__ import annotations

import pytest

from rlhf_core import CONTROL, Evaluator, RewardModel
from rlhf_core.errors import PipelineError
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.wiring import check, usable_as
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.records import Comparison, Demonstration, Ranking, Rating, Reaction
from stub_plugins import PIPELINE, STUBS, stub_registry


@pytest.fixture
def problems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def problems(*changes, registry=None):
        text = PIPELINE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "p.yaml").write_text(text)
        registry = registry or stub_registry()
        return check(load_pipeline("p.yaml", registry=registry), registry)

    return problems


class Tilt(RewardModel):
    """For carts."""

    modality = CONTROL


class Careless(Evaluator):
    """Its declaration raises."""

    @classmethod
    def produces(cls, config):
        raise KeyError("oops")


PANEL = "use: pairs\n      raters: 5"
ASK = PIPELINE[PIPELINE.index("ask:") : PIPELINE.index("reward:")]


def test_what_fits_has_no_problems(problems):
    assert problems() == []


def test_conversions():
    assert usable_as({Ranking}) == {Ranking, Comparison}
    assert usable_as({Rating}) == {Rating, Comparison}
    assert usable_as({Reaction, Demonstration}) == {Reaction, Demonstration}


@pytest.mark.parametrize("annotator", ["ranks", "rates"])
def test_rankings_and_ratings_hold_comparisons(problems, annotator):
    assert problems((PANEL, f"use: {annotator}")) == []


def test_feedback_that_the_reward_model_cannot_use(problems):
    (problem,) = problems((PANEL, "use: clicks"))
    assert problem.where == "p.yaml:14"
    assert problem.what == (
        "reward: `bt` learns from comparisons, but the only annotator, `clicks` (p.yaml:13), yields reactions."
    )
    assert problem.remedy == (
        "Convert them with `ask.convert: {use: clicked}`. "
        "Installed annotators that yield comparisons: pairs, ranks, rates. "
        "Installed reward models that learn from reactions: ctr."
    )


@pytest.mark.parametrize("convert", ["{use: clicked}", "[{use: clicked}]"])
def test_feedback_that_is_converted(problems, convert):
    assert problems((PANEL, "use: clicks\n  convert: " + convert)) == []


def test_a_converter_without_anything_to_convert(problems):
    (problem,) = problems((PANEL, f"{PANEL}\n  convert: {{use: clicked}}"))
    assert problem.where == "p.yaml:15"
    assert problem.what == "ask.convert.0: `clicked` converts reactions, and nobody gives any."
    assert problem.remedy == "There are comparisons."


def test_a_converter_nobody_knows(problems):
    with pytest.raises(PipelineError, match="clickd"):
        problems((PANEL, "use: clicks\n  convert: {use: clickd}"))


def test_several_givers_are_all_named(problems):
    (problem,) = problems((PANEL, "use: clicks"), ("prompts: 20", "clicks: true"))
    assert "`clicks` (p.yaml:13) yields reactions and `prompts` (p.yaml:4) yields reactions." in problem.what


def test_one_fitting_giver_is_enough(problems):
    assert problems((PANEL, "use: clicks\n    - use: pairs")) == []


def test_data_may_bring_the_feedback(problems):
    assert problems((ASK, ""), ("prompts: 20", "clicks: true"), ("use: bt\n  epochs: 2", "use: ctr")) == []


def test_nobody_is_asked_and_the_data_brings_nothing(problems):
    (problem,) = problems((ASK, ""))
    assert "learns from comparisons, but the data brings no feedback, and there is no `ask:` section." in problem.what
    assert "pairs, ranks, rates" in problem.remedy


def test_a_reward_model_that_does_not_learn_needs_no_feedback(problems):
    assert problems((ASK, ""), ("use: bt\n  epochs: 2", "use: words")) == []


def test_a_gold_judge_that_learns_needs_feedback_too(problems):
    (problem,) = problems(("gate:", "gold: {use: ctr}\ngate:"))
    assert problem.what.startswith("gold: `ctr` learns from reactions, but the only annotator, `pairs`")


def test_modalities(problems):
    (problem,) = problems(("- use: prompts\n    prompts: 20", "- use: prompts\n  - use: cart"))
    assert problem.where == "p.yaml:5"
    assert problem.what == "data.1: `cart` works with control, but `model` (p.yaml:6) works with text."
    assert problem.remedy == "Installed data sources that work with it: prompts."


def test_modalities_around_a_policy_that_takes_any(problems):
    found = problems(("use: model\n  model: tiny", "use: balancer"), ("{use: imitate}", "null"))
    assert {problem.what for problem in found} == {
        "optimize: `climb` works with text, but `balancer` (p.yaml:6) works with control.",
        "optimize: `climb` trains policies of the class LanguageModelPolicy, and `balancer` (p.yaml:6) is none.",
    }
    assert found[0].remedy == "Installed optimizers that work with it: evolve."


def test_nested_plugins_have_a_modality_too(problems):
    registry = Registry(
        plugins=[*stub_registry().plugins, PluginInfo("reward_models", "tilt", "stubs", "1", "test_wiring:Tilt")]
    )
    (problem,) = problems(("raters: 5", "judge: {use: tilt}"), registry=registry)
    assert problem.what.startswith("ask.annotators.0.judge: `tilt` works with control")


def test_what_the_gate_reads_must_be_measured(problems):
    (problem,) = problems(("{use: wins}", "{use: lengths}"))
    assert problem.where == f"p.yaml:{PIPELINE[: PIPELINE.index('gate')].count(chr(10)) + 1}"
    assert "`threshold` reads the metric win_rate, which nothing under `evaluate:` produces" in problem.what
    assert problem.remedy == "Installed evaluators that produce win_rate: wins."
    (problem,) = problems(("{use: threshold}", "{use: threshold, metrics: [win_rates]}"))
    assert "did you mean `win_rate`?" in problem.what
    assert problem.remedy == "No evaluators that produce win_rates are installed."


def test_the_gold_judge_must_exist(problems):
    (problem,) = problems(("{use: wins}", "{use: wins, judge: gold}"))
    assert "evaluate.0: `wins` asks the gold judge, but the pipeline names none." in problem.what
    assert problems(("{use: wins}", "{use: wins, judge: gold}"), ("gate:", "gold: {use: words}\ngate:")) == []


def test_a_declaration_that_raises_is_a_problem_of_its_plugin(problems):
    plugins = [info for info in stub_registry().plugins if info.name != "wins"]
    registry = Registry(plugins=[*plugins, PluginInfo("evaluators", "wins", "acme", "2.0", "test_wiring:Careless")])
    (problem,) = problems(registry=registry)
    assert "evaluate.0: `wins` of acme 2.0 is broken: produces() raised KeyError: 'oops'" in problem.what


def test_clashing_candidates_are_named_in_full(problems):
    """Advice that cannot be followed is no advice."""
    extra = PluginInfo("reward_models", "ctr", "acme", "2.0", "stub_plugins:Ctr")
    (problem,) = problems((PANEL, "use: clicks"), registry=Registry(plugins=[*stub_registry().plugins, extra]))
    assert problem.remedy.endswith("learn from reactions: acme/ctr, stubs/ctr.")


def test_a_pipeline_without_a_file(tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("use: pairs\n      raters: 5", "use: clicks"))
    pipeline = load_pipeline(tmp_path / "p.yaml", registry=stub_registry()).pipeline
    (problem,) = check(pipeline, stub_registry())
    assert problem.where == "reward"
    assert "`clicks` (ask.annotators.0)" in problem.what
    without = Registry(plugins=[info for info in STUBS if info.name != "clicks"])
    assert [problem.where for problem in check(pipeline, without)] == ["ask.selector.use", "ask.annotators.0.use"]
