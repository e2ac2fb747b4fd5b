"""Pipelines compiled to graphs: which nodes there are, and what each of them takes. Nothing runs."""

import json
from pathlib import Path

import pytest
import yaml

from rlhf_core import Evaluator, PluginConfig, Step, StepOutcome
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.graph.build import Compiler
from rlhf_flows.graph.node import Graph, Node
from rlhf_flows.graph.parts import Asked, Standing
from stub_plugins import PIPELINE, stub_registry

DEMO = Path(__file__).parents[3] / "flows" / "rlhf_flows" / "templates" / "newsroom.yaml"
ASKED_ONCE = (Asked(1, ("1/answers_pairs",)),)


class Sieve(Step):
    """Leaves out part of the feedback."""

    takes = {"snapshot"}
    gives = "snapshot"

    def step(self, job):
        return StepOutcome()


class Calibrate(Step):
    """Makes a better reward model of the reward model."""

    takes = {"reward", "snapshot"}
    gives = "reward"

    def step(self, job):
        return StepOutcome()


class Export(Step):
    """Takes the policy away, once it is decided."""

    takes = {"policy"}

    def step(self, job):
        return StepOutcome()


class Trend(Evaluator):
    """Looks at the rounds before."""

    looks_back = True

    class Config(PluginConfig):
        window: int = 3
        """How many rounds."""

    @classmethod
    def produces(cls, config):
        return frozenset({"trend"})


OWN = [
    PluginInfo(kind, plugin.__name__.lower(), "own", "1.0", f"{__name__}:{plugin.__name__}")
    for kind, plugins in {"steps": (Sieve, Calibrate, Export), "evaluators": (Trend,)}.items()
    for plugin in plugins
]
REGISTRY = Registry(plugins=[*stub_registry().plugins, *OWN])


def compiler(**changes):
    """Of the stubs' pipeline with changes; None leaves a section out."""
    sections = yaml.safe_load(PIPELINE) | changes
    return Compiler(Pipeline.model_validate({k: v for k, v in sections.items() if v is not None}), REGISTRY)


def edges(graph):
    """Node -> what it takes, each as NODE or, where it comes from another graph, too, by its id."""
    return {node.id: set(node.predecessors) for node in graph}


def inputs(graph, node):
    return {name: given.node for name, given in graph[node].inputs.items()}


def whole(compiled, rounds=3, asks=True):
    """All nodes of a campaign, and the standing of each round."""
    nodes, asked = list(compiled.start()), ()
    for number in range(1, rounds + 1):
        collected = compiled.collect(number, Standing(number - 1, asked))
        if asks:
            asked += (Asked(number, tuple(node.id for node in collected if node.stage == "answers")),)
        nodes += [*collected, *compiled.retrain(number, Standing(number - 1, asked))]
    return nodes


def test_the_demos_start():
    demo = Compiler(load_pipeline(DEMO).pipeline, Registry())
    assert edges(demo.start()) == {
        "0/data": set(),
        "0/warm_start": {"0/data"},
        "0/samples": {"0/data", "0/warm_start"},
        "0/evaluate_win_rate": {"0/data", "0/warm_start", "0/samples"},
        "0/evaluate_generation": {"0/data", "0/warm_start", "0/samples"},
        "0/evaluate_rouge": {"0/data", "0/warm_start", "0/samples"},
    }


def test_the_demos_second_round_after_a_promotion():
    demo = Compiler(load_pipeline(DEMO).pipeline, Registry())
    asked = (Asked(1, ("1/answers_simulated_panel",)),)
    assert edges(demo.collect(2, Standing(1, asked))) == {
        "2/questions": {"0/data", "1/optimize"},
        "2/answers_simulated_panel": {"2/questions"},
    }
    asked += (Asked(2, ("2/answers_simulated_panel",)),)
    evaluation = {"0/data", "0/warm_start", "2/optimize", "2/reward", "2/samples", "1/samples", "0/samples"}
    measured = ("reward", "evaluate_win_rate", "evaluate_generation", "evaluate_rouge")
    assert edges(demo.retrain(2, Standing(1, asked))) == {
        "2/snapshot": {
            "0/data", "1/questions", "1/answers_simulated_panel", "2/questions", "2/answers_simulated_panel",
        },
        "2/reward": {"2/snapshot", "0/warm_start", "1/reward"},
        "2/optimize": {"0/data", "1/optimize", "0/warm_start", "2/reward"},
        "2/samples": {"0/data", "2/optimize"},
        "2/evaluate_win_rate": evaluation,
        "2/evaluate_generation": evaluation,
        "2/evaluate_rouge": evaluation,
        "2/gate": {"2/optimize", *(f"{number}/{name}" for number in (1, 2) for name in measured)},
    }  # fmt: skip


def test_where_a_challenger_was_kept_out_the_champion_of_before_goes_on():
    graph = compiler(reference="champion").retrain(3, Standing(1, ASKED_ONCE))
    assert inputs(graph, "3/optimize") == {
        "data": "0/data", "policy": "1/optimize", "reference": "1/optimize", "reward": "3/reward",
        "previous": "2/optimize",
    }  # fmt: skip
    assert inputs(graph, "3/reward")["previous"] == "2/reward"
    assert inputs(graph, "3/evaluate_wins")["samples_champion"] == "1/samples"
    assert {given for name, given in inputs(graph, "3/gate").items() if name.startswith("champion")} == {
        "1/reward", "1/evaluate_wins",
    }  # fmt: skip


def test_each_round_may_start_anew():
    graph = compiler(start_from="warm_start").retrain(3, Standing(2, ASKED_ONCE))
    assert inputs(graph, "3/optimize")["policy"] == inputs(graph, "3/optimize")["reference"] == "0/warm_start"


def test_without_anybody_to_ask_a_round_learns_from_the_data_alone():
    silent = compiler(ask=None)
    assert silent.collect(1, Standing()).nodes == ()
    assert inputs(silent.retrain(1, Standing()), "1/snapshot") == {"data": "0/data"}


def test_a_gold_judge_that_learns_is_fitted_before_the_first_round():
    assert "0/gold" not in compiler(gold={"use": "words"}).start()
    learnt = compiler(gold={"use": "bt"})
    assert edges(learnt.start())["0/gold"] == {"0/snapshot", "0/warm_start"}
    assert not learnt.start()["0/snapshot"].cached
    assert inputs(learnt.start(), "0/evaluate_wins")["gold"] == "0/gold"
    assert inputs(learnt.retrain(2, Standing(1)), "2/evaluate_wins")["gold"] == "0/gold"


@pytest.mark.parametrize(("rounds", "takes"), [("first", "1/tune"), ("every", "3/tune")])
def test_settings_are_searched_in_the_first_round_or_in_every_one(rounds, takes):
    tuned = compiler(tune={"trials": 2, "rounds": rounds, "space": {"rate": {"low": 1e-4, "high": 1e-2}}})
    first, third = (tuned.retrain(n, Standing(0, ASKED_ONCE)) for n in (1, 3))
    assert inputs(first, "1/tune") == {"snapshot": "1/snapshot", "base": "0/warm_start"}
    assert inputs(first, "1/reward")["tuning"] == "1/tune"
    assert inputs(third, "3/reward")["tuning"] == takes
    assert ("3/tune" in third) == (rounds == "every")


def test_patches_are_checked_on_what_the_optimizer_gets(tmp_path):
    patch = tmp_path / "patch.jsonl"
    patch.write_text("{}\n")
    graph = compiler(patches=[str(patch)], steps={"use": "calibrate", "after": "reward"}).retrain(1, Standing())
    assert edges(graph)["1/patches"] == {"1/step_calibrate"}
    before = graph["1/patches"].settings
    patch.write_text("{} \n")
    assert compiler(patches=[str(patch)]).retrain(1, Standing())["1/patches"].settings != before


def test_a_selector_that_looks_at_the_reward_model_takes_the_one_of_the_round_before():
    looking = compiler(ask={"questions": 5, "selector": {"use": "sure"}, "annotators": [{"use": "pairs"}]})
    assert "reward" not in inputs(looking.collect(1, Standing()), "1/questions")
    questions = looking.collect(3, Standing(0, ASKED_ONCE))["3/questions"]
    assert questions.inputs["reward"].node == "2/reward" and questions.of_role("reward")
    plain = compiler().collect(3, Standing(0, ASKED_ONCE))["3/questions"]
    assert "reward" not in plain.inputs and not plain.of_role("reward")


def test_an_evaluator_that_looks_back_takes_all_rounds_and_no_other_does():
    graph = compiler(evaluate=[{"use": "trend"}, {"use": "wins"}]).retrain(2, Standing(1, ASKED_ONCE))
    looks, other = graph["2/evaluate_trend"], graph["2/evaluate_wins"]
    assert {name: given.node for name, given in looks.inputs.items() if "round" in name or "past" in name} == {
        "samples_round_0": "0/samples", "samples_round_1": "1/samples",
        "past_0_0": "0/evaluate_trend", "past_0_1": "0/evaluate_wins",
        "past_1_0": "1/reward", "past_1_1": "1/evaluate_trend", "past_1_2": "1/evaluate_wins",
    }  # fmt: skip
    assert looks.reads_metrics and not other.reads_metrics
    assert not any(name.startswith(("past", "samples_round")) for name in other.inputs)


def test_plugins_of_one_name_are_stages_of_their_own():
    twice = compiler(
        evaluate=[{"use": "wins"}, {"use": "stubs/wins", "judge": "gold"}, {"use": "wins"}],
        ask={"questions": 5, "annotators": [{"use": "pairs"}, {"use": "rates"}, {"use": "pairs", "raters": 9}]},
    )
    names = {node.name for node in twice.retrain(1, Standing()) if node.stage == "evaluate"}
    assert names == {"evaluate_wins", "evaluate_wins_1", "evaluate_wins_2"}
    answers = [node for node in twice.collect(1, Standing()) if node.stage == "answers"]
    assert [node.name for node in answers] == ["answers_pairs", "answers_rates", "answers_pairs_2"]
    assert len({node.seed for node in answers}) == 3
    assert all(node.predecessors == ("1/questions",) for node in answers)


def test_a_snapshot_takes_the_answers_of_those_who_are_done():
    standing = Standing(0, (Asked(1, ("1/answers_pairs", "1/answers_rates")), Asked(2, ())))
    assert inputs(compiler().retrain(2, standing), "2/snapshot") == {
        "data": "0/data", "questions_1": "1/questions", "answers_1_0": "1/answers_pairs",
        "answers_1_1": "1/answers_rates", "questions_2": "2/questions",
    }  # fmt: skip


def test_without_a_reward_model_the_optimizer_takes_the_feedback():
    direct = compiler(reward=None, optimize={"use": "listen"}, gate={"use": "threshold", "metrics": ["win_rate"]})
    graph = direct.retrain(2, Standing(1, ASKED_ONCE))
    assert edges(graph) == {
        "2/snapshot": {"0/data", "1/questions", "1/answers_pairs"},
        "2/optimize": {"0/data", "1/optimize", "0/warm_start", "2/snapshot"},
        "2/samples": {"0/data", "2/optimize"},
        "2/evaluate_wins": {"0/data", "0/warm_start", "2/optimize", "2/samples", "1/samples", "0/samples"},
        "2/gate": {"2/optimize", "2/evaluate_wins", "1/evaluate_wins"},
    }
    assert not any(node.of_role("reward") for node in graph)
    assert "snapshot" not in inputs(compiler(optimize={"use": "listen"}).retrain(1, Standing()), "1/optimize")


def test_a_reward_model_that_learns_nothing_waits_for_nothing():
    graph = compiler(reward={"use": "words"}, ask=None).retrain(1, Standing())
    assert "1/snapshot" not in graph
    assert edges(graph)["1/reward"] == set()


STEPS = [
    {"use": "clean", "after": "data"},
    {"use": "sieve", "after": "collect"},
    {"use": "sieve", "before": "reward"},
    {"use": "calibrate", "after": "reward"},
    {"use": "recheck", "after": "reward"},
    {"use": "export", "after": "gate"},
    {"use": "tell", "after": "gate"},
]


def test_steps_stand_at_their_places_and_what_they_give_is_used_from_there_on():
    stepped = compiler(steps=STEPS, gold={"use": "bt"})
    nodes = whole(stepped, 2)
    taken = {node.id: {name: given.node for name, given in node.inputs.items()} for node in nodes}
    assert taken["0/step_clean"] == {"data": "0/data"}
    assert [name for name, given in taken.items() if "0/data" in given.values()] == ["0/step_clean"]
    assert taken["2/step_sieve"] == {"snapshot": "2/snapshot"}
    assert taken["2/step_sieve_2"] == {"snapshot": "2/step_sieve"}
    assert taken["2/reward"]["snapshot"] == "2/step_sieve_2"
    assert taken["2/reward"]["previous"] == "1/step_calibrate"
    assert taken["2/step_calibrate"] == {"reward": "2/reward", "snapshot": "2/step_sieve_2"}
    assert taken["2/step_recheck"] == {"reward": "2/step_calibrate", "snapshot": "2/step_sieve_2"}
    assert taken["2/optimize"]["reward"] == taken["2/evaluate_wins"]["reward"] == "2/step_calibrate"
    assert taken["2/step_export"] == {"policy": "2/optimize", "decision": "2/gate"}
    assert not any("tell" in name for name in taken)
    challenger = [given for name, given in taken["2/gate"].items() if name.startswith("challenger")]
    assert challenger == ["2/reward", "2/step_calibrate", "2/step_recheck", "2/evaluate_wins"]
    # The gold judge is fitted on the feedback as it came.
    assert taken["0/gold"]["snapshot"] == "0/snapshot"
    assert stepped.parts.reward_of(2).node == "2/step_calibrate"
    assert stepped.parts.feedback_of(2).node == "2/step_sieve_2"


def test_a_step_knows_the_plugins_whose_artifacts_it_takes():
    (checked,) = (n for n in compiler(steps=STEPS).retrain(1, Standing()) if n.name == "step_calibrate")
    assert [role.role for role in checked.plugins] == ["step", "reward", "policy"]
    assert checked.of_role("step")[0].model_dump() == {"use": "calibrate"}
    assert checked.gives == "reward" and checked.reads_metrics


def test_a_selector_sees_the_reward_model_that_a_step_replaced():
    looking = compiler(
        ask={"questions": 5, "selector": {"use": "sure"}, "annotators": [{"use": "pairs"}]},
        steps={"use": "calibrate", "after": "reward"},
    )
    assert inputs(looking.collect(2, Standing(1, ASKED_ONCE)), "2/questions")["reward"] == "1/step_calibrate"


SHAPES = {
    "plain": {},
    "silent": {"ask": None},
    "direct": {"reward": None, "optimize": {"use": "listen"}},
    "stepped": {"steps": STEPS, "gold": {"use": "bt"}},
    "tuned": {"tune": {"trials": 2, "space": {"rate": {"low": 1e-4, "high": 1e-2}}}},
    "looking": {"evaluate": [{"use": "trend"}, {"use": "wins"}]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_campaign_is_plain_json_without_circles_each_node_once_after_what_it_takes(shape):
    compiled = compiler(**SHAPES[shape])
    nodes = whole(compiled, asks="ask" not in SHAPES[shape])
    before: dict[str, Node] = {}
    for node in nodes:
        assert node.id not in before
        assert all(given.node in before and before[given.node].gives == given.kind for given in node.inputs.values())
        before[node.id] = node
        assert Node.model_validate_json(json.dumps(json.loads(node.model_dump_json()))) == node
    graph = compiled.retrain(2, Standing(1, ASKED_ONCE))
    assert Graph.model_validate_json(graph.model_dump_json()) == graph
    assert whole(compiler(**SHAPES[shape]), asks="ask" not in SHAPES[shape]) == nodes


def test_a_stages_seed_depends_on_the_pipelines_its_name_and_its_round_alone():
    seeds = {node.id: node.seed for node in whole(compiler())}
    assert len(set(seeds.values())) == len(seeds)
    other = {node.id: node.seed for node in whole(compiler(steps=STEPS, reward={"use": "bt", "epochs": 9}))}
    assert {name: other[name] for name in seeds} == seeds
    assert not set({node.seed for node in whole(compiler(seed=8))}) & set(seeds.values())
    assert seeds["1/reward"] == 697671313  # results that people have are found by it
