import sys

import pytest
from pydantic import ValidationError
from texts_kit import scores

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Prompt, Sample, Trajectory
from rlhf_plugins.reward_models.callable import CallableReward
from rlhf_plugins.reward_models.rule import Rule

CAPITALS = {"name": "shouting", "pattern": r"\b[A-Z]{3,}\b", "points": -0.5, "count": True}


def test_rules_keep_the_contract(rlhf_conformance):
    rlhf_conformance(Rule, rules=[CAPITALS])


def test_points_by_hand(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# unwanted\ndamn\nholy cow\n\nc++\n", encoding="utf-8")
    model = Rule(rules=[CAPITALS, {"name": "toxicity", "words": str(words), "points": -2.0}])
    found = scores(model, "THE MAYOR was here", "Holy  cow damnation", "DAMN: holy cow, damn", "I write c++.", "")
    assert found.criteria == {"shouting": [2, 0, 1, 0, 0], "toxicity": [0, 0, 1, 1, 0]}
    assert found.mean == [-1.0, 0.0, -2.5, -2.0, 0.0]
    assert Rule.reads(model.config) == (words,)


def test_only_the_beginning_of_a_huge_answer_is_read():
    model = Rule(rules=[{"name": "x", "pattern": "x", "count": True}], max_characters=10)
    assert scores(model, "x" * 10**6).mean == [10.0]


def test_broken_rules(tmp_path):
    with pytest.raises(ValidationError, match="regular expression"):
        Rule(rules=[{"name": "x", "pattern": "("}])
    with pytest.raises(ValidationError, match="either a `pattern` or a file"):
        Rule(rules=[{"name": "x"}])
    with pytest.raises(DataError, match="cannot read the word list"):
        Rule(rules=[{"name": "x", "words": "no/such/file"}])
    (tmp_path / "empty").write_text("\n# nothing\n")
    with pytest.raises(DataError, match="empty"):
        Rule(rules=[{"name": "x", "words": str(tmp_path / "empty")}])
    prompt = Prompt(text="x")
    ride = Sample(prompt_id=prompt.id, trajectory=Trajectory(observations=((0.0,),), actions=((1.0,),)))
    with pytest.raises(RlhfError, match="`rule` reads texts"):
        Rule(rules=[CAPITALS]).score([prompt], [ride])


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_reward.py").write_text(
        "def shorter(prompt, sample, per=1):\n    return -len(sample.text) / per\n"
        "def broken(prompt, sample):\n    raise KeyError('no')\n"
        "def endless(prompt, sample):\n    return float('inf')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "own_reward.py"
    sys.modules.pop("own_reward", None)


def test_a_function_as_a_reward(module, rlhf_conformance):
    rlhf_conformance(CallableReward, function="own_reward:shorter")
    model = CallableReward(function="own_reward:shorter", options={"per": 2})
    assert scores(model, "abcd", "").mean == [-2.0, 0.0]
    assert scores(model).mean == []


def test_a_changed_function_is_a_new_result(module):
    use = Use(use="callable", function="own_reward:shorter")
    before = Registry().fingerprint("reward_models", use)
    module.write_text(module.read_text() + "\n")
    assert Registry().fingerprint("reward_models", use) != before


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("own_reward:broken", "KeyError: 'no'"),
        ("own_reward:endless", "returned inf"),
        ("own_reward:number", "int, no function"),
        ("own_reward:missing", "AttributeError"),
        ("no_such_module:f", "ModuleNotFoundError"),
    ],
)
def test_functions_that_fail_are_named(module, function, what):
    with pytest.raises(RlhfError, match=what) as error:
        scores(CallableReward(function=function), "x")
    assert function in str(error.value)


def test_nonsense_names_are_refused():
    with pytest.raises(ValidationError):
        CallableReward(function="os.system('x')")
