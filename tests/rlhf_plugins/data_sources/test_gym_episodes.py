"""Starts of episodes, and recorded ones, also broken."""

import json

import pytest

from control_kit import CARTPOLE, PENDULUM, policy, starts
from rlhf_core.errors import DataError
from rlhf_core.splits import split_of
from rlhf_plugins.data_sources.gym_episodes import GymEpisodes


def recorded(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


GOOD = {"seed": 4, "observations": [[0, 0, 0, 0], [0.1, 0, 0, 0]], "actions": [[1], [0]], "weight": 2}


def test_keeps_the_contract(rlhf_conformance, tmp_path):
    rlhf_conformance(GymEpisodes, environment=CARTPOLE, episodes=30, recorded=str(recorded(tmp_path / "r", GOOD)))


def test_one_start_a_seed_and_a_tenth_held_out():
    prompts = list(GymEpisodes(environment=CARTPOLE, episodes=1000, first_seed=5).prompts())
    assert [prompt.episode.seed for prompt in prompts] == list(range(5, 1005))
    assert 60 < sum(split_of(prompt) == "test" for prompt in prompts) < 140


def test_a_recording_becomes_demonstrations(tmp_path):
    episode = policy().sample(starts(count=1), 1, seed=0)[0][0].trajectory
    row = {"seed": 0, "observations": episode.observations, "actions": episode.actions}
    source = GymEpisodes(environment=CARTPOLE, recorded=recorded(tmp_path / "r.jsonl", row, "", GOOD))
    first, second = source.demonstrations()
    assert first.question.prompt == starts(count=1)[0]
    assert first.feedback.trajectory.observations == episode.observations
    assert (second.feedback.weight, second.feedback.source) == (2, "data")
    assert source.reads(source.config) == (tmp_path / "r.jsonl",)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "JSONDecodeError"),
        ([1], "TypeError"),
        ({"seed": 1}, "KeyError"),
        ({**GOOD, "actions": [[1]]}, "one row a step"),
        ({**GOOD, "observations": [[0], [0]]}, "observations of 4 numbers"),
        ({**GOOD, "actions": [[1, 1], [0, 0]]}, "actions of 1 numbers"),
        ({**GOOD, "actions": [[2], [0]]}, "whole numbers from 0 to 1"),
        ({**GOOD, "actions": [[0.5], [0]]}, "whole numbers from 0 to 1"),
        ({**GOOD, "observations": [], "actions": []}, "no steps"),
        ({**GOOD, "weight": -1}, "greater than 0"),
        ('{"seed": 1, "observations": [[NaN, 0, 0, 0]], "actions": [[0]]}', "finite"),
    ],
)
def test_broken_recordings_name_the_line(tmp_path, row, said):
    path = recorded(tmp_path / "r.jsonl", GOOD, row)
    with pytest.raises(DataError, match=said) as error:
        list(GymEpisodes(environment=CARTPOLE, recorded=path).demonstrations())
    assert error.value.where == f"{path}:2"


def test_missing_things_are_said(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(GymEpisodes(environment=CARTPOLE, recorded=tmp_path / "none").demonstrations())
    with pytest.raises(DataError, match="cannot be made"):
        list(GymEpisodes(environment="Nothing-v7").prompts())
    assert list(GymEpisodes(environment=PENDULUM).demonstrations()) == []
