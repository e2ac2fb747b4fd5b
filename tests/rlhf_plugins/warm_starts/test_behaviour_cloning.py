"""Behaviour cloning against known policies and an independent likelihood."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from control_kit import CARTPOLE, MOUNTAIN, PENDULUM, policy, same, starts, weights
from rlhf_core import Demonstration, Run, Trajectory
from rlhf_core.errors import DataError, TrainingError
from rlhf_core.records import Answer, Question
from rlhf_core.run import Checkpoints
from rlhf_plugins.warm_starts.behaviour_cloning import BehaviourCloning, action_losses


def shown(act, environment=CARTPOLE, count=30, first=0, steps=40, weight=1.0):
    rng = np.random.default_rng(first)
    width = {CARTPOLE: 4, PENDULUM: 3}[environment]
    found = []
    for prompt in starts(environment, count, first):
        rows = rng.normal(size=(steps, width)).astype(np.float32)
        trajectory = Trajectory(observations=rows.tolist(), actions=[act(row, rng) for row in rows])
        question = Question(prompt=prompt)
        demonstration = Demonstration(question_id=question.id, trajectory=trajectory, weight=weight)
        found.append(Answer(question=question, feedback=demonstration))
    return found


def towards(row, rng):
    return [float(row[2] > 0)]


def away(row, rng):
    return [float(row[2] <= 0)]


def agreement(made, answers):
    rows = torch.tensor([row for a in answers for row in a.feedback.trajectory.observations])
    wanted = torch.tensor([row[0] for a in answers for row in a.feedback.trajectory.actions])
    return (made.network(rows).argmax(1) == wanted).float().mean().item()


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(BehaviourCloning, policy=lambda: policy(MOUNTAIN, max_steps=5))


def test_losses_by_hand_and_by_scipy():
    outputs = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    found = action_losses(outputs, None, torch.tensor([[0.0], [1.0]]))
    np.testing.assert_allclose(found, [np.log(2), np.log(1 + np.exp(-2))], rtol=1e-6)
    log_std = torch.tensor([0.0, np.log(2.0)])
    actions = torch.tensor([[0.5, 1.0], [1.0, -1.0]])
    wanted = -norm.logpdf(actions.numpy(), outputs.numpy(), log_std.exp().numpy()).sum(axis=1)
    np.testing.assert_allclose(action_losses(outputs, log_std, actions), wanted, rtol=1e-5)


def test_an_expert_is_imitated_on_held_out_episodes():
    made, held_out = policy(), shown(towards, first=500)
    found = BehaviourCloning(epochs=10, lr=1e-2).start(made, shown(towards), held_out)
    assert agreement(made, held_out) > 0.95
    assert found["bc_loss"].value < 0.2 and found["bc_loss"].n == 30


def test_vectors_with_their_deviation():
    def act(row, rng):
        return [float(np.clip(row[0] * 0.5 + 0.2 * rng.normal(), -2, 2))]

    made = policy(PENDULUM)
    BehaviourCloning(epochs=30, lr=1e-2).start(made, shown(act, PENDULUM), [])
    assert made.log_std.exp().item() == pytest.approx(0.2, abs=0.05)
    rows = torch.randn(200, 3)
    assert (made.network(rows)[:, 0] - 0.5 * rows[:, 0]).abs().mean() < 0.1


def test_weights_count():
    against = [*shown(towards, weight=10.0), *shown(away, first=100)]
    made = policy()
    BehaviourCloning(epochs=10, lr=1e-2).start(made, against, [])
    assert agreement(made, shown(towards, first=500)) > 0.9


def test_killed_and_resumed_it_ends_in_the_same_weights(tmp_path):
    class Killed(Run):
        def progress(self, done, total, note=""):
            if done == 4:
                raise KeyboardInterrupt

    demonstrations = shown(towards, count=5)
    whole, resumed = policy(), policy()
    options = {"epochs": 6, "checkpoint_every": 2}
    BehaviourCloning(**options).start(whole, demonstrations, [])
    with pytest.raises(KeyboardInterrupt):
        BehaviourCloning(**options, run=Killed(0, Checkpoints(tmp_path))).start(resumed, demonstrations, [])
    again = policy()
    BehaviourCloning(**options, run=Run(0, Checkpoints(tmp_path))).start(again, demonstrations, [])
    assert same(weights(whole), weights(again))


def test_nothing_to_imitate_and_no_numbers():
    with pytest.raises(DataError, match="no recorded episodes"):
        BehaviourCloning().start(policy(), [], [])
    with pytest.raises(TrainingError, match="the loss became"):
        BehaviourCloning(lr=1e30).start(policy(PENDULUM), shown(lambda row, rng: [0.0], PENDULUM), [])
