import sys

import pytest

from rlhf_core.errors import PluginError
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.reward_models.function import Function


@pytest.fixture
def brevity(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "LIMIT = 3\n"
        "class Nested:\n"
        "    @staticmethod\n"
        "    def score(prompts, samples): return [1] * len(samples)\n"
        "def brevity(prompts, samples):\n"
        "    return [-len(sample.text) for sample in samples]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    return tmp_path / "my_rewards.py"


def test_keeps_the_contract(brevity, rlhf_conformance):
    rlhf_conformance(Function, of="my_rewards:brevity")


def test_scores_with_the_function(brevity):
    prompt = Prompt(text="a")
    samples = [Sample(prompt_id=prompt.id, text=text) for text in ("one", "three")]
    assert Function(of="my_rewards:brevity").score([prompt] * 2, samples).mean == [-3.0, -5.0]
    assert Function(of="my_rewards:Nested.score").score([prompt] * 2, samples).mean == [1.0, 1.0]


def test_a_change_in_the_code_is_a_new_reward(brevity):
    assert Function.reads(Function.Config(of="my_rewards:brevity")) == (brevity,)
    assert Function.reads(Function.Config(of="nowhere_at_all.rewards:x")) == ()


@pytest.mark.parametrize(
    ("of", "said"), [("my_rewards:nothing", "cannot import"), ("nowhere_at_all:x", "cannot import"), ("my_rewards:LIMIT", "int")]
)  # fmt: skip
def test_what_is_no_function_is_refused(brevity, of, said):
    with pytest.raises(PluginError, match=said):
        Function(of=of)


def test_a_name_without_a_module_is_refused():
    with pytest.raises(ValueError, match="pattern"):
        Function(of="brevity")
