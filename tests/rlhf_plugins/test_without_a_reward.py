"""The built-in plugins in pipelines without a reward model, and with the built-in steps."""

from pathlib import Path

import pytest

from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.wiring import check
from rlhf_core.plugins.registry import Registry

PIPELINE = """\
pipeline: direct
data:
  - {use: newsroom}
policy: {use: causal_lm, model: starter}
ask:
  annotators: [{use: simulated_panel}]
optimize: {use: trl_dpo}
gold: {use: principles}
evaluate:
  - {use: win_rate}
  - {use: generation}
  - {use: tournament}
gate: {use: better}
steps:
  - {use: deduplicate, after: data}
  - {use: notify, after: gate, url: "$${TEAM_WEBHOOK}", format: slack}
"""


@pytest.fixture
def problems(tmp_path):
    def problems(*changes):
        text = PIPELINE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        Path(tmp_path, "p.yaml").write_text(text)
        return check(load_pipeline(tmp_path / "p.yaml", registry=Registry()), Registry())

    return problems


@pytest.mark.parametrize("optimizer", ["trl_dpo", "trl_kto"])
def test_direct_preference_optimisation(problems, optimizer):
    assert problems(("trl_dpo", optimizer)) == []


@pytest.mark.parametrize("optimizer", ["trl_dpo", "trl_kto"])
def test_with_a_reward_nobody_needs_to_be_asked(problems, optimizer):
    ask = "ask:\n  annotators: [{use: simulated_panel}]\n"
    assert problems(("trl_dpo", optimizer), (ask, "reward: {use: principles}\n")) == []
    (problem,) = problems(("trl_dpo", optimizer), (ask, ""), ("  - {use: deduplicate, after: data}\n", ""))
    assert f"`{optimizer}` learns from comparisons," in problem.what


def test_reactions_are_enough_for_kto_alone(problems):
    reactions = ("simulated_panel", "reactions")
    assert problems(reactions, ("trl_dpo", "trl_kto")) == []
    (problem,) = problems(reactions)
    assert "trl_kto" in problem.remedy


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("trl_dpo", "ppo"), "optimize: `ppo` trains on a reward"),
        (("{use: generation}", "{use: over_optimisation}"), "evaluate.1: `over_optimisation` measures by the reward"),
        (("{use: tournament}", "{use: tournament, judge: reward}"), "evaluate.2: `tournament` measures by the reward"),
        (("annotators:", "selector: {use: uncertainty}\n  annotators:"), "ask.selector: `uncertainty` chooses by the"),
        (("{use: better}", "{use: evidence, demands: {proxy_score: {than: 0}}}"), "gate: `evidence` reads the metric"),
        (("after: data", "after: collect"), "steps.0: `deduplicate` gives `data`, and"),
    ],
)  # fmt: skip
def test_what_cannot_do_without_one(problems, change, what):
    assert [problem.what[: len(what)] for problem in problems(change)] == [what]


def test_the_remedy_names_the_optimizers(problems):
    (problem,) = problems(("trl_dpo", "ppo"))
    assert problem.remedy == (
        "Add `reward: {use: ...}`. Installed optimizers that learn from the feedback itself: trl_dpo, trl_kto."
    )
