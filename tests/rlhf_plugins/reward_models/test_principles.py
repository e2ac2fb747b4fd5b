"""The reward model `principles`."""

import pytest
from pydantic import ValidationError

from rlhf_core import Episode, Prompt, Sample, Trajectory
from rlhf_core.errors import PipelineError
from rlhf_plugins.data_sources.newsroom import Newsroom
from rlhf_plugins.reward_models.principles import PrinciplesReward

CALM = {"name": "calm", "weight": 2, "checks": [{"check": "lexicon_absent", "words": ["!"], "each": 0.5}]}
SHORT = {"name": "short", "weight": 1, "checks": [{"check": "length_between", "maximum": 2, "softness": 1}]}


def test_the_mean_is_the_weighted_sum_and_the_criteria_add_up_to_it():
    reward = PrinciplesReward(list={"principles": [CALM, SHORT]}, weights={"short": 4})
    prompt = Prompt(text="p")
    samples = [Sample(prompt_id=prompt.id, text=text) for text in ("two words", "wow!", "")]
    scores = reward.score([prompt] * 3, samples)
    assert scores.mean == [6.0, 5.0, 0.0]
    assert scores.criteria == {"calm": [2.0, 1.0, 0.0], "short": [4.0, 4.0, 0.0]}


def test_newsroom_is_the_default_and_one_score_does_not_depend_on_the_others():
    reward = PrinciplesReward()
    prompts = list(Newsroom(prompts=20).prompts())
    samples = [Sample(prompt_id=prompt.id, text=prompt.references[0]) for prompt in prompts]
    together = reward.score(prompts, samples)
    alone = [reward.score([prompt], [sample]).mean[0] for prompt, sample in zip(prompts, samples, strict=True)]
    assert together.mean == alone
    assert min(together.mean) > 7
    for number, mean in enumerate(together.mean):
        assert mean == pytest.approx(sum(values[number] for values in together.criteria.values()))


def test_it_learns_from_nothing_and_scores_nothing():
    assert not frozenset(PrinciplesReward.learns_from)
    assert PrinciplesReward().score([], []).mean == []


def test_control():
    reward = PrinciplesReward(list={"principles": [{"name": "return", "checks": [{"check": "environment_return"}]}]})
    prompt = Prompt(episode=Episode(environment="CartPole-v1", seed=1))
    trajectory = Trajectory(observations=((0.0,),) * 3, actions=((0.0,),) * 3, environment_rewards=(1.0, 1.0, 0.5))
    assert reward.score([prompt], [Sample(prompt_id=prompt.id, trajectory=trajectory)]).mean == [2.5]


def test_a_list_in_the_pipeline_is_checked_with_the_pipeline():
    with pytest.raises(ValidationError, match="did you mean 'regex'"):
        PrinciplesReward(list={"principles": [{"name": "x", "checks": [{"check": "regexp", "pattern": "a"}]}]})
    with pytest.raises(PipelineError):
        PrinciplesReward(list="no_such_list")


def test_the_config_has_a_json_schema():
    assert "list" in PrinciplesReward.Config.model_json_schema()["properties"]
