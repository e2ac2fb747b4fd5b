"""Segments of episodes, chosen by another selector and drawn for people."""

import base64
import io

import pytest
from PIL import Image

from control_kit import CARTPOLE, PENDULUM, policy, sample_of, starts
from rlhf_core import Candidate, Prompt, Run, Sample, Trajectory
from rlhf_core.errors import DataError, RlhfError
from rlhf_plugins.selectors.segments import Segments, possible_starts


def episode(prompt, steps, offset=0.0, finished=True):
    rows = tuple((offset + step, 0.0) for step in range(steps))
    trajectory = Trajectory(observations=rows, actions=((0.0,),) * steps, environment_rewards=(1.0,) * steps)
    return sample_of(prompt, trajectory, finished=finished)


def candidates(steps=40, samples=4, finished=True):
    return [
        Candidate(prompt, [episode(prompt, steps, 1000.0 * k, finished) for k in range(samples)]) for prompt in starts()
    ]


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Segments)
    rlhf_conformance(Segments, length=3, per_sample=2)


def test_where_segments_may_begin():
    assert list(possible_starts(5, 3, ended=True)) == [0, 1, 2, 3, 4]
    assert list(possible_starts(5, 3, ended=False)) == [0, 1, 2]
    assert list(possible_starts(2, 3, ended=False)) == [0]


def test_segments_are_cut_out_of_their_episodes():
    questions = Segments(length=15, run=Run(1)).select(candidates(), 16, None)
    lengths = set()
    for question in questions:
        for sample in question.samples:
            first = sample.trajectory.observations[0][0] % 1000
            rows = [row[0] % 1000 for row in sample.trajectory.observations]
            assert rows == [first + step for step in range(len(rows))]
            assert len(rows) == min(15, 40 - first)
            assert sample.finished == (rows[-1] == 39)
            assert len(sample.trajectory.environment_rewards) == len(rows)
            lengths.add(len(rows))
    assert len(questions) == 16 and len(lengths) > 2


def test_an_episode_that_a_limit_cut_gives_whole_segments():
    questions = Segments(length=15).select(candidates(finished=False), 16, None)
    assert {len(s.trajectory.actions) for q in questions for s in q.samples} == {15}
    assert not any(s.finished for q in questions for s in q.samples)


def test_without_a_length_episodes_stay_whole():
    questions = Segments(length=None).select(candidates(), 8, None)
    assert {len(s.trajectory.actions) for q in questions for s in q.samples} == {40}


def test_several_segments_an_episode_and_one_seed_one_choice():
    one = [Candidate(starts()[0], [episode(starts()[0], 40)])]
    assert Segments(length=5).select(one, 10, None) == []
    questions = Segments(length=5, per_sample=4).select(one, 10, None)
    assert len(questions) == 6
    assert questions == Segments(length=5, per_sample=4).select(one, 10, None)
    assert questions != Segments(length=5, per_sample=4, run=Run(1)).select(one, 10, None)


def test_texts_have_no_segments():
    prompt = Prompt(text="Write.")
    with pytest.raises(DataError, match="no segments"):
        Segments().select([Candidate(prompt, [Sample(prompt_id=prompt.id, text="x")])], 1, None)


@pytest.mark.parametrize("environment", [CARTPOLE, PENDULUM])
def test_pictures_show_the_segment_and_change_nothing_else(environment):
    prompts = starts(environment, 1)
    played = [Candidate(prompts[0], policy(environment).sample(prompts, 2, seed=0)[0])]
    [plain] = Segments(length=8).select(played, 1, None)
    [drawn] = Segments(length=8, pictures={"every": 3, "height": 40}).select(played, 1, None)
    assert drawn.id == plain.id
    for sample, bare in zip(drawn.samples, plain.samples, strict=True):
        frames = sample.trajectory.frames
        assert len(frames) == -(-len(bare.trajectory.actions) // 3)
        pictures = [Image.open(io.BytesIO(base64.b64decode(frame.partition(",")[2]))) for frame in frames]
        assert {picture.height for picture in pictures} == {40}
        assert {frame.partition(",")[0] for frame in frames} == {"data:image/png;base64"}
        assert len(set(frames)) == len(frames)
        assert sum(map(len, frames)) < 4000 * len(frames)
        assert sample.blind().trajectory.frames == frames


def test_what_happens_otherwise_the_second_time_is_not_drawn():
    prompts = starts(count=1)
    notes = []
    run = Run()
    run.note = notes.append
    made_up = [Candidate(prompts[0], [episode(prompts[0], 9, 7.0), episode(prompts[0], 9, 8.0)])]
    shaped = [
        Candidate(
            prompt,
            [
                s.model_copy(
                    update={
                        "trajectory": Trajectory(
                            observations=tuple((*row, 0.0, 0.0) for row in s.trajectory.observations),
                            actions=s.trajectory.actions,
                        )
                    }
                )
                for s in samples
            ],
        )
        for prompt, samples in made_up
    ]
    [question] = Segments(length=4, pictures={}, run=run).select(shaped, 1, None)
    assert [s.trajectory.frames for s in question.samples] == [(), ()]
    assert len(notes) == 2 and "does not happen again" in notes[0]


def test_a_missing_library_is_named(monkeypatch):
    import gymnasium
    from gymnasium.envs.classic_control import CartPoleEnv

    def cannot(self):
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(CartPoleEnv, "render", cannot)
    prompts = starts(count=1)
    played = [Candidate(prompts[0], policy().sample(prompts, 2, seed=0)[0])]
    with pytest.raises(RlhfError, match="cannot be drawn: pygame"):
        Segments(length=8, pictures={}).select(played, 1, None)
