"""Rewards of steps learnt from preferences over segments."""

import numpy as np
import pytest
import torch

from control_kit import CARTPOLE, PENDULUM, sample_of, starts
from rlhf_core import Prompt, Run, Sample, Trajectory
from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import FitJob
from rlhf_core.records import Answer, Question
from rlhf_core.run import Checkpoints
from rlhf_plugins.control.environments import Spaces
from rlhf_plugins.reward_models._bradley_terry import lapsing_loss, preference_loss
from rlhf_plugins.reward_models._steps import Clips, Row, SegmentValuer, StepRewards
from rlhf_plugins.reward_models.segment_mlp import SegmentMlp

SMALL = {"hidden": (32,), "epochs": 25, "batch": 16, "lr": 1e-2, "weight_decay": 0.05}


def segment(prompt, rng, steps=None):
    """Random steps; what is truly good is a small angle, the third number."""
    steps = steps or int(rng.integers(3, 12))
    observations = rng.normal(size=(steps, 4)).round(3)
    actions = rng.integers(0, 2, size=(steps, 1)).astype(float)
    trajectory = Trajectory(observations=observations.tolist(), actions=actions.tolist())
    return sample_of(prompt, trajectory)


def worth(sample):
    return sum(1.0 - abs(row[2]) for row in sample.trajectory.observations)


def answers(prompts, rng, kind="comparison", flip=0.0):
    found = []
    for prompt in prompts:
        question = Question(prompt=prompt, samples=(segment(prompt, rng), segment(prompt, rng)))
        scores = [worth(sample) for sample in question.samples]
        if rng.random() < flip:
            scores = scores[::-1]
        if kind == "comparison":
            found.append(Answer(question=question, feedback=question.compare(scores, annotator="r")))
        else:
            for i, score in enumerate(scores):
                rating = question.rate(i, float(np.clip(score, 0, 10)), low=0, high=10, annotator="r")
                found.append(Answer(question=question, feedback=rating))
    return found


def job(kind="comparison", count=400, flip=0.0):
    rng = np.random.default_rng(0)
    return FitJob(
        train=FeedbackSet.of(answers(starts(count=count), rng, kind, flip)),
        validation=FeedbackSet.of(answers(starts(count=60, first=10_000), rng, kind, flip)),
    )


def fresh(count=200):
    rng = np.random.default_rng(9)
    prompts = starts(count=count)
    samples = [segment(prompt, rng) for prompt in prompts]
    return prompts, samples, np.array([worth(sample) for sample in samples])


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(SegmentMlp, **SMALL)
    rlhf_conformance(SegmentMlp, **SMALL, loss="mse", members=1)


def test_what_was_preferred_is_learnt_in_spite_of_wrong_answers():
    model = SegmentMlp(**SMALL, run=Run(1))
    found = model.fit(job(flip=0.1))
    prompts, samples, true = fresh()
    scores = model.score(prompts, samples)
    assert np.corrcoef(scores.mean, true)[0, 1] > 0.9
    assert min(scores.spread) >= 0 and max(scores.spread) > 0
    assert found["reward_loss"].value < np.log(2) * 0.8
    assert found["reward_train_pairs"].value == 400


def test_answers_that_are_all_wrong_teach_the_contrary():
    model = SegmentMlp(**SMALL, run=Run(1))
    model.fit(job(flip=1.0))
    prompts, samples, true = fresh()
    assert np.corrcoef(model.score(prompts, samples).mean, true)[0, 1] < -0.9


def test_lapses_by_hand():
    margins = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = lapsing_loss(margins, torch.tensor([1.0, 0.25]), torch.tensor([1.0, 1.0]), lapse=0.2)
    # P = 0.8 sigma(m) + 0.1: 0.5, and 0.8 * 0.880797 + 0.1 = 0.804638.
    second = -(0.25 * np.log(0.804638) + 0.75 * np.log(0.195362))
    assert loss.item() == pytest.approx((-np.log(0.5) + second) / 2, rel=1e-5)
    torch.autograd.gradcheck(
        lambda m: lapsing_loss(m, torch.tensor([1.0, 0.25]).double(), torch.ones(2).double(), 0.2),
        torch.tensor([0.3, -1.5], dtype=torch.float64, requires_grad=True),
    )


def test_without_lapses_it_is_bradley_terry_and_with_them_a_wrong_answer_hardly_pulls():
    stated, weight = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 2.0, 0.5])
    margins = torch.tensor([0.4, -1.0, 3.0])
    assert lapsing_loss(margins, stated, weight, 0.0).item() == pytest.approx(
        preference_loss(margins, stated, weight).item(), rel=1e-5
    )
    pulls = []
    for lapse in (0.0, 0.1):
        margin = torch.tensor([8.0], requires_grad=True)  # far better, and yet the answer says worse
        lapsing_loss(margin, torch.zeros(1), torch.ones(1), lapse).backward()
        pulls.append(margin.grad.item())
    assert pulls[0] > 0.99
    assert 0 < pulls[1] < 0.01


def test_ratings_are_met_in_squares():
    model = SegmentMlp(**{**SMALL, "lr": 3e-3, "epochs": 40, "patience": 10}, loss="mse", run=Run(1))
    found = model.fit(job("rating"))
    prompts, samples, true = fresh()
    scores = np.array(model.score(prompts, samples).mean)
    rated = np.clip(true, 0, 10) / 10
    assert np.corrcoef(scores, rated)[0, 1] > 0.85
    assert np.mean((scores - rated) ** 2) < np.var(rated) / 2
    assert found["reward_loss"].value < np.var(rated) / 2


def test_a_segment_is_worth_the_sum_of_its_steps():
    model = SegmentMlp(**SMALL)
    model.fit(job())
    prompt = starts()[0]
    whole = segment(prompt, np.random.default_rng(3), steps=9)
    steps = [sample_of(prompt, whole.trajectory.cut(i, i + 1)) for i in range(9)]
    alone = model.score([prompt] * 9, steps).mean
    assert model.score([prompt], [whole]).mean[0] == pytest.approx(sum(alone), rel=1e-4)


def test_sums_by_hand():
    rewards = StepRewards(6, [], members=2)
    with torch.no_grad():
        for member, factor in zip(rewards.members, (1.0, 10.0), strict=True):
            member[0].weight.copy_(factor * torch.tensor([[1.0, 0, 0, 0, 0, 100.0]]))
            member[0].bias.fill_(0.0)
    prompt = starts()[0]
    trajectories = [
        Trajectory(observations=((1.0, 0, 0, 0), (2.0, 0, 0, 0)), actions=((0.0,), (1.0,))),
        Trajectory(observations=((5.0, 9, 9, 9),), actions=((0.0,),)),
    ]
    clips = Clips.of([sample_of(prompt, trajectory) for trajectory in trajectories], Spaces.of(CARTPOLE))
    valuer = SegmentValuer(rewards, clips)
    np.testing.assert_allclose(valuer.sums(), [[103, 5], [1030, 50]])
    rows = [Row(1, 0, 1, 3), Row(0, 1, None, 1)]
    assert valuer.values(rows).tolist() == [1030, 50, 5, 0]


def test_standardised_features():
    rewards = StepRewards(2, [], members=1)
    rewards.standardise_on(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert rewards.mean.tolist() == [2.0, 7.0] and rewards.std.tolist() == [1.0, 1.0]


def test_killed_and_resumed_it_ends_in_the_same_weights(tmp_path):
    class Killed(Run):
        def progress(self, done, total, note=""):
            if done == 40:
                raise KeyboardInterrupt

    work = job(count=150)
    whole, killed = SegmentMlp(**SMALL, run=Run(4)), SegmentMlp(**SMALL, run=Killed(4, Checkpoints(tmp_path)))
    whole.fit(work)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(work)
    assert Checkpoints(tmp_path).latest()
    resumed = SegmentMlp(**SMALL, run=Run(4, Checkpoints(tmp_path)))
    resumed.fit(work)
    prompts, samples, _ = fresh(20)
    assert resumed.score(prompts, samples) == whole.score(prompts, samples)


def test_the_environments_own_rewards_change_nothing():
    def rewarded(answer):
        samples = tuple(
            s.model_copy(
                update={
                    "trajectory": s.trajectory.model_copy(
                        update={"environment_rewards": (99.0,) * len(s.trajectory.actions)}
                    )
                }
            )
            for s in answer.question.samples
        )
        return Answer(question=answer.question.model_copy(update={"samples": samples}), feedback=answer.feedback)

    work = job(count=100)
    seen = FitJob(
        train=FeedbackSet.of(map(rewarded, work.train.answers())),
        validation=FeedbackSet.of(map(rewarded, work.validation.answers())),
    )
    scores = []
    for each in (work, seen):
        model = SegmentMlp(**SMALL)
        model.fit(each)
        scores.append(model.score(*fresh(10)[:2]))
    assert scores[0] == scores[1]


def test_what_cannot_be_learnt_or_scored_is_said():
    nothing = FitJob(train=FeedbackSet.of(job("comparison", 5).train.answers()), validation=FeedbackSet())
    with pytest.raises(TrainingError, match="hold no ratings"):
        SegmentMlp(loss="mse").fit(nothing)
    with pytest.raises(RlhfError, match="learnt nothing yet"):
        SegmentMlp().score([], [])
    model = SegmentMlp(**SMALL)
    model.fit(job(count=10))
    text = Prompt(text="Write.")
    with pytest.raises(RlhfError, match="a text has no steps"):
        model.score([text], [Sample(prompt_id=text.id, text="x")])
    other = starts(PENDULUM)[0]
    strange = sample_of(other, Trajectory(observations=((0.0,) * 3,), actions=((0.0,),)))
    with pytest.raises(RlhfError, match="observations of 3 numbers, where CartPole-v1 gives 4"):
        model.score([other], [strange])
