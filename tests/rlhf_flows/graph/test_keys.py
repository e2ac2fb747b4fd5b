"""What a stage's key depends on, and why a stage is computed again, in words."""

import json

import pytest

from rlhf_core.metrics import Metric
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.graph import Node, Role
from rlhf_flows.graph.keys import changes, ingredients, key_of
from stub_plugins import stub_registry

OTHER = PluginInfo("reward_models", "bt", "acme", "1.0", "stub_plugins:Bt")
NEWER = OTHER._replace(version="1.1")
INPUTS = {"snapshot": "1" * 64, "data": "2" * 64, "previous": "3" * 64}
ACCURACY = {"reward_accuracy": Metric(value=0.8, low=0.7, high=0.9, n=12)}


MINE = """\
from helper import HALF
from rlhf_core import RewardModel

class Mine(RewardModel):
    half = HALF
"""


def registry(*infos):
    return Registry(plugins=[*(info for info in stub_registry().plugins if info.name != "bt"), *(infos or (OTHER,))])


def node(**changes):
    base = {
        "id": "1/reward",
        "name": "reward",
        "stage": "reward",
        "body": "rlhf_flows.stages.learn:fit_reward",
        "title": "reward",
        "gives": "reward",
        "pipeline": "demo",
        "round": 1,
        "seed": 5,
        "plugins": (role("reward", "reward_models", "bt", epochs=1), role("policy", "policies", "model", model="tiny")),
        "settings": {"annotators": 0.0, "measure_selection": False},
    }
    return Node(**{**base, **changes})


def role(name, kind, use, **options):
    return Role(role=name, kind=kind, use=Use(use=use, **options))


def of(made=None, inputs=INPUTS, metrics=None, known=None, **changes):
    return ingredients(made or node(**changes), inputs, metrics or {}, known or registry())


def key(made=None, **changes):
    options = {name: changes.pop(name) for name in ("inputs", "metrics", "known") if name in changes}
    made = made or node(**changes)
    return key_of(made, of(made, **options))


DIFFERENT = {
    "another version": {"known": registry(NEWER)},
    "another plugin": {"plugins": (role("reward", "reward_models", "words"),)},
    "another role": {"plugins": (role("gold", "reward_models", "bt", epochs=1),)},
    "one plugin less": {"plugins": (role("reward", "reward_models", "bt", epochs=1),)},
    "another config": {"plugins": (role("reward", "reward_models", "bt", epochs=7),)},
    "another input": {"inputs": INPUTS | {"snapshot": "9" * 64}},
    "one input less": {"inputs": {"data": "2" * 64, "snapshot": "1" * 64}},
    "inputs that changed places": {"inputs": INPUTS | {"snapshot": "2" * 64, "data": "1" * 64}},
    "another setting": {"settings": {"annotators": 0.2, "measure_selection": False}},
    "another round": {"round": 2},
    "another seed": {"seed": 6},
    "another name": {"name": "gold"},
    "another body": {"body": "rlhf_flows.stages.learn:fit_gold"},
    "metrics that it reads": {"reads_metrics": True, "metrics": {"reward": ACCURACY}},
}


def test_each_thing_that_matters_makes_another_key():
    assert key() == key()
    keys = {key(), *(key(**changed) for changed in DIFFERENT.values())}
    assert len(keys) == len(DIFFERENT) + 1


def test_what_does_not_matter_is_not_in_the_key():
    default = {"rate": 1e-3, "schedule": {"peak": 1e-3}, "stop": "early", "limit": "none", "epochs": 1}
    written_out = role("reward", "reward_models", "bt", **default)
    same = [
        key(title="another word", stage="elsewhere", gives="other", pipeline="another", id="1/other"),
        key(plugins=(written_out, node().plugins[1])),
        key(metrics={"reward": ACCURACY}),
        key(inputs=dict(reversed(INPUTS.items()))),
        key(plugins=(role("reward", "reward_models", "acme/bt", epochs=1), node().plugins[1])),
    ]
    assert set(same) == {key()}


def test_a_key_names_its_stage_and_is_a_file_name():
    assert key().startswith("reward-") and len(key()) == len("reward-") + 32


def test_the_key_covers_the_code_of_the_body_and_of_the_plugins(written):
    registry, edit = written
    mine = node(plugins=(role("reward", "reward_models", "mine"),))
    before = of(mine, known=registry)
    assert {"rlhf_flows/stages/learn.py", "rlhf_core/plugins/reward_model.py", "mine.py", "helper.py"} <= {
        *before["code"]
    }
    assert "rlhf_flows/stages/policy.py" not in before["code"]
    edit("helper.py", "HALF = 0.25\n")
    after = of(mine, known=Registry(plugins=registry.plugins))
    assert key_of(mine, before) != key_of(mine, after)
    assert changes(before, after) == ["helper.py changed"]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A registry with a plugin that was written here, and a function that edits its files."""
    from rlhf_core.plugins import code

    def edit(name, text):
        (tmp_path / name).write_text(text)
        code.forget()

    edit("helper.py", "HALF = 0.5\n")
    edit(
        "mine.py",
        "from rlhf_core import RewardModel\nfrom helper import HALF\n\nclass Mine(RewardModel):\n    x = HALF\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code.forget()
    yield Registry(plugins=[PluginInfo("reward_models", "mine", "mine", "1", "mine:Mine")]), edit
    code.forget()


WORDS = {
    "another version": ["acme/bt: 1.0 -> 1.1"],
    "another plugin": ["the reward is stubs/words now, and was acme/bt", "the policy stubs/model is gone"],
    "one plugin less": ["the policy stubs/model is gone"],
    "another config": ["reward.epochs: 1 -> 7"],
    "another input": ["the feedback changed"],
    "one input less": ["it does without what the round before left now"],
    "another setting": ["annotators: 0.0 -> 0.2"],
    "another round": ["the round is 2 now, and was 1"],
    "another seed": ["the seed changed"],
    "another body": ["the stage is computed in another way now"],
    "metrics that it reads": ["what was measured changed"],
}


@pytest.mark.parametrize("what", WORDS)
def test_what_changed_is_said_in_words(what):
    changed = dict(DIFFERENT[what])
    if what in ("another plugin", "one plugin less", "another config"):
        changed["plugins"] += node().plugins[1:] if what == "another config" else ()
    options = {name: changed.pop(name) for name in ("inputs", "metrics", "known") if name in changed}
    assert changes(of(), of(node(**changed), **options)) == WORDS[what]


def test_nothing_changed_is_no_reason():
    assert changes(of(), of()) == []
    assert changes(of(), json.loads(json.dumps(of()))) == []


def test_settings_inside_settings_and_files_that_are_read():
    def with_config(**options):
        return of(plugins=(role("reward", "reward_models", "bt", **options),))

    said = changes(with_config(), with_config(schedule={"peak": 0.5}, limit=3))
    assert said == ["reward.limit: none -> 3", "reward.schedule.peak: 0.001 -> 0.5"]
    patches = [of(settings={"patches": [{"path": "p", "digest": digest}]}) for digest in "ab"]
    assert changes(*patches) == ["patches changed"]
    seeds = [of(settings={"seed": seed}, seed=seed) for seed in (3, 4)]
    assert changes(*seeds) == ["seed: 3 -> 4"]


def test_a_plugin_inside_a_plugin():
    def panel(**judge):
        return of(plugins=(role("annotator", "annotators", "pairs", judge={"use": "bt", **judge}),))

    assert changes(panel(), panel(epochs=2)) == ["annotator.judge.epochs: nothing -> 2"]
    newer = ingredients(
        node(plugins=(role("annotator", "annotators", "pairs", judge={"use": "bt"}),)), INPUTS, {}, registry(NEWER)
    )
    assert changes(panel(), newer) == ["acme/bt: 1.0 -> 1.1"]


def test_inputs_in_words():
    def taking(**inputs):
        return of(inputs=inputs)

    names = [
        "answers_2_0", "answers_2_1", "base", "challenger_0", "challenger_1", "champion_0", "data", "gold", "past_1_0",
        "policy", "questions_2", "reward", "samples_champion", "samples_round_4", "samples_warm_start", "tuning",
    ]  # fmt: skip
    said = changes(taking(**dict.fromkeys(names, "1")), taking(**dict.fromkeys(names, "2")))
    assert said == [
        "the answers of round 2 changed",
        "the warm start changed",
        "what was measured of the challenger changed",
        "what was measured of the champion changed",
        "the data changed",
        "the gold judge changed",
        "what was measured in round 1 changed",
        "the policy changed",
        "the questions of round 2 changed",
        "the reward model changed",
        "the champion's samples changed",
        "the samples of round 4 changed",
        "the warm start's samples changed",
        "what the search for settings chose changed",
    ]
    assert changes(taking(), taking(reward="1")) == ["it takes the reward model now"]


def test_code_that_came_and_went_and_distributions():
    def having(**code):
        return {**of(), "code": {name.replace("__", "/").replace("_py", ".py"): d for name, d in code.items()}}

    before = having(a__gone_py="1", a__same_py="1", torchy="2.1", helper_py="1")
    after = having(a__new_py="1", a__same_py="1", torchy="2.2", helper_py="2", numpyish="1.0")
    assert changes(before, after) == [
        "a/gone.py is gone",
        "a/new.py is new",
        "helper.py changed",
        "numpyish: not there -> 1.0",
        "torchy: 2.1 -> 2.2",
    ]
