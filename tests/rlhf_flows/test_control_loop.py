"""Whole campaigns in control through the command, and what their parts may see."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest

from control_kit import policy, starts
from rlhf_core import PluginConfig, RewardModel, Scores, Selector, Use
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.pipeline import Ask
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.graph import Input
from rlhf_flows.graph.build import Compiler, Standing
from rlhf_flows.stages.artifacts_io import Blind
from stub_plugins import stub_registry

RLHF = str(Path(sys.executable).with_name("rlhf"))
SMALL = Path(__file__).with_name("small_control.yaml")
PIPELINES = Path(__file__).parents[2] / "deployments" / "pipelines"


def rlhf(*arguments, workspace):
    command = [RLHF, *map(str, arguments), "--workspace", str(workspace), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=290)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("control")
    return workspace, rlhf("run", SMALL, workspace=workspace)


def test_the_ordinary_loop_runs(campaign):
    _, summary = campaign
    assert [done["round"] for done in summary["rounds"]] == [0, 1, 2]
    last = summary["rounds"][2]["metrics"]
    assert {"true_return", "return_gain_vs_champion", "win_rate_vs_warm_start", "gold_score", "proxy_score",
            "reward_accuracy", "reward_loss"} <= set(last)  # fmt: skip
    assert last["gold_score"]["value"] == pytest.approx(last["true_return"]["value"])
    assert last["true_return"]["n"] == 12


def test_everything_is_cached_afterwards_and_the_other_optimizer_is_one_word(campaign):
    workspace, _ = campaign
    rows = rlhf("run", SMALL, "--dry-run", workspace=workspace)
    assert {row["state"] for row in rows} == {"cached"}
    words = [f"optimize={json.dumps({'use': 'control_dqn', 'steps': 512, 'learning_starts': 100})}"]
    other = rlhf("run", SMALL, "--rounds", 1, "--set", *words, workspace=workspace)
    assert "true_return" in other["rounds"][1]["metrics"]


def test_nothing_that_is_learnt_from_holds_the_environments_rewards(campaign):
    workspace, _ = campaign
    with FeedbackStore.open(f"sqlite:///{workspace / 'feedback.db'}") as store:
        answers = list(store.answers())
    shown = [sample for answer in answers for sample in answer.question.samples]
    assert len(answers) >= 80 and all(sample.trajectory.actions for sample in shown)
    assert not any(sample.trajectory.environment_rewards for sample in shown)


def test_a_learnt_reward_sees_blind_samples_whoever_calls_it():
    class Peeks(RewardModel):
        def score(self, prompts, samples):
            return Scores([float(sum(sample.trajectory.environment_rewards)) for sample in samples], [0.5])

    prompts = starts(count=1)
    [samples] = policy().sample(prompts, 1, seed=0)
    assert Peeks().score(prompts, samples).mean[0] > 5
    assert Blind(Peeks()).score(prompts, samples) == Scores([0.0], [0.5])


class Curious(Selector):
    """Looks at the reward model."""

    uses_reward = True


class Wrapping(Selector):
    """Leaves the choice to another."""

    class Config(PluginConfig):
        """Which."""

        then: Annotated[Use, Use.of("selectors")] = Use(use="random")
        """The other one."""


@pytest.mark.parametrize(("then", "asks"), [("curious", True), ("wrapping", False)])
def test_a_selector_within_a_selector_gets_the_reward_model_it_uses(then, asks):
    infos = [
        PluginInfo("selectors", plugin.__name__.lower(), "stubs", "1.0", f"{__name__}:{plugin.__name__}")
        for plugin in (Curious, Wrapping)
    ]
    stubs = stub_registry()
    registry = Registry(plugins=[*(info for info in stubs.of_kind("annotators")), *stubs.of_kind("selectors"), *infos])
    ask = Ask(selector=Use(use="wrapping", then={"use": then}), annotators=(Use(use="pairs"),))
    pipeline = SimpleNamespace(pipeline="p", policy=Use(use="p"), reward=Use(use="r"), seed=0, ask=ask, steps=())
    questions = Compiler(pipeline, registry).collect(2, Standing(champion=1))["2/questions"]
    assert questions.inputs.get("reward") == (Input(node="1/reward", kind="reward") if asks else None)
    assert (questions.of_role("reward") == (pipeline.reward,)) == asks


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("optimizer", ["control_ppo", "control_dqn"])
def test_a_pole_is_balanced_from_preferences_alone(optimizer, tmp_path):
    sets = ("--set", f"optimize.use={optimizer}")
    summary = rlhf("run", PIPELINES / "cartpole.yaml", *sets, workspace=tmp_path)
    champion = [done for done in summary["rounds"] if done["promoted"]][-1]
    assert champion["metrics"]["true_return"]["value"] >= 475
