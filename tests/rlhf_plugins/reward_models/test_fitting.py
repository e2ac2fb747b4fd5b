"""The training loop of reward models: what it keeps, what it refuses, and going on where it was killed."""

from dataclasses import replace

import numpy as np
import pytest
from texts_kit import comparisons, job

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import FitJob
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins.reward_models._fitting import Fitting
from rlhf_plugins.reward_models.feed_forward import FeedForward
from rlhf_plugins.reward_models.pairwise import Pairwise


class Killed(Exception):
    """The process ends here."""


class Fragile(Checkpoints):
    """Dies after some checkpoints."""

    left = 99

    def save(self, step, write):
        super().save(step, write)
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize(("survived", "optimizer"), [(1, "adamw"), (3, "adamw"), (5, "adamw"), (3, "sgd")])
def test_resumed_to_the_bit(policy, tmp_path, monkeypatch, survived, optimizer):
    monkeypatch.setattr("rlhf_plugins.reward_models._fitting.CHECKPOINT_STEPS", 3)
    work = job(policy, comparisons, train=64, validation=30)
    whole = Pairwise(run=Run(5), epochs=3, batch=16, optimizer=optimizer)
    expected = whole.fit(work)
    checkpoints = Fragile(tmp_path)
    checkpoints.left = survived
    with pytest.raises(Killed):
        Pairwise(run=Run(5, checkpoints), epochs=3, batch=16, optimizer=optimizer).fit(work)
    resumed = Pairwise(run=Run(5, Checkpoints(tmp_path)), epochs=3, batch=16, optimizer=optimizer)
    assert resumed.fit(work) == expected
    assert weights_digest(resumed.scalar) == weights_digest(whole.scalar)
    assert resumed.offset == whole.offset


def test_the_best_epoch_is_kept(policy):
    model = Pairwise()
    model._start(FitJob(FeedbackSet(), FeedbackSet(), base=policy))
    train = model._tensors(FeedbackSet.of(comparisons(32, 1)).pairs())
    losses, digests, followed = iter([0.6, 0.5, 0.55, 0.56, 0.1]), [], []

    def validate():
        digests.append(weights_digest(model.scalar))
        return next(losses)

    options = {"batch": 16, "lr": 1e-3, "weight_decay": 0.0, "after_epoch": followed.append}
    state = Fitting(model._valuer, train, Run(), epochs=9, patience=1, validate=validate, **options).fit()
    assert (state.best_epoch, state.epochs) == (2, 4)
    assert followed == [1, 2, 3], "the last epoch is followed by none"
    assert weights_digest(model.scalar) == digests[1]


def test_a_loss_that_is_no_number_never_reaches_the_weights(policy):
    model = Pairwise()
    model._start(FitJob(FeedbackSet(), FeedbackSet(), base=policy))
    train = model._tensors(FeedbackSet.of(comparisons(8, 1)).pairs())
    before = weights_digest(model.scalar)
    broken = replace(train, stated=np.full(8, np.nan))
    options = {"lr": 1e-3, "weight_decay": 0.0, "validate": None, "after_epoch": lambda epoch: None}
    fitting = Fitting(model._valuer, broken, Run(), epochs=1, batch=8, patience=0, **options)
    with pytest.raises(TrainingError, match="step 1"):
        fitting.fit()
    assert weights_digest(model.scalar) == before


def test_both_optimizers_learn_what_is_preferred(policy):
    work = job(policy, comparisons)
    for options in ({"optimizer": "adamw", "lr": 0.03}, {"optimizer": "sgd", "lr": 1.0}):
        model = FeedForward(run=Run(1), hidden=0, epochs=10, batch=8, patience=9, **options)
        assert model.fit(work)["reward_accuracy"].value > 0.95
