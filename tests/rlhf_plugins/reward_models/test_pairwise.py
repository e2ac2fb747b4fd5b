import json
import math
import random
from functools import partial

import numpy as np
import pytest
from texts_kit import QUICK, comparisons, job, scores, tied

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import FitJob
from rlhf_core.records import Prompt, Sample
from rlhf_core.run import Run
from rlhf_plugins.reward_models.pairwise import Pairwise


class Listener(Run):
    """Remembers what is said."""

    def __init__(self, seed=0, checkpoints=None):
        super().__init__(seed, checkpoints)
        self.notes, self.logged = [], []

    def note(self, text):
        self.notes.append(text)

    def log(self, metrics, step):
        self.logged.append((step, dict(metrics)))


@pytest.fixture(scope="module")
def fitted(policy):
    model = Pairwise(run=Listener(), **QUICK)
    return model, model.fit(job(policy, comparisons))


def test_keeps_the_contract(policy, rlhf_conformance):
    rlhf_conformance(Pairwise, policy=lambda: policy, epochs=1)


def test_learns_what_is_preferred(fitted):
    model, metrics = fitted
    assert metrics["reward_accuracy"].value > 0.95
    assert metrics["reward_auc"].value > 0.95
    assert metrics["reward_accuracy"].n == 40
    assert metrics["reward_train_pairs"].value == 120
    with_word, without = scores(model, "good plan for the river", "plan for the river").mean
    assert with_word > without
    assert any("accuracy" in figures for _, figures in model.run.logged)


def test_scores_are_centred_on_the_training_samples(fitted):
    model, _ = fitted
    questions = [answer.question for answer in comparisons(120, 1)]
    pairs = [(question.prompt, sample) for question in questions for sample in question.samples]
    assert np.mean(model.score(*map(list, zip(*pairs, strict=True))).mean) == pytest.approx(0, abs=1e-4)


def test_a_score_depends_on_nothing_else(fitted):
    model, _ = fitted
    one, other = Prompt(text="Headline: vote"), Prompt(text="Headline: a much longer story of the old bridge")
    texts = ["good plan", "storm", "good river park school vote mayor town", "x"] * 5
    prompts = [one if i % 3 else other for i in range(len(texts))]
    samples = [Sample(prompt_id=prompt.id, text=text) for prompt, text in zip(prompts, texts, strict=True)]
    together = model.score(prompts, samples).mean
    alone = [model.score([prompt], [sample]).mean[0] for prompt, sample in zip(prompts, samples, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert model.score([], []).mean == []


def test_saved_and_loaded_scores_the_same(fitted, tmp_path):
    model, _ = fitted
    model.save(tmp_path)
    again = Pairwise(**QUICK)
    again.load(tmp_path)
    assert scores(again, "good plan", "storm").mean == scores(model, "good plan", "storm").mean
    assert json.loads((tmp_path / "calibration.json").read_text()) == model.calibration == again.calibration
    assert sum(row["pairs"] for row in model.calibration) == 40
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pt"))


def test_the_policy_stays_as_it_is(policy):
    before = weights_digest(policy.lm)
    Pairwise(epochs=1).fit(job(policy, comparisons, train=20, validation=0))
    assert weights_digest(policy.lm) == before


def test_soft_labels_are_calibrated(policy):
    # People choose the good one in 3 of 4 cases: no model can be right more often, and it should know.
    noisy = partial(comparisons, says=lambda rng, counts: counts if rng.random() < 0.75 else counts[::-1])
    model = Pairwise(run=Listener(), **QUICK)
    metrics = model.fit(job(policy, noisy, train=300, validation=200))
    with_word, without = scores(model, "good plan river", "plan river").mean
    assert 0.6 < 1 / (1 + math.exp(without - with_word)) < 0.9
    assert metrics["reward_ece"].value < 0.1


def test_order_of_answers_does_not_matter(policy):
    given = list(comparisons(60, 1))
    shuffled = random.Random(3).sample(given, len(given))
    digests = set()
    for train in (given, shuffled):
        model = Pairwise(epochs=1)
        model.fit(FitJob(FeedbackSet.of(train), FeedbackSet(), base=policy))
        digests.add(weights_digest(model.scalar))
    assert len(digests) == 1


def test_ties_pull_scores_together(policy):
    model = Pairwise(**QUICK)
    train = [*comparisons(60, 1), *tied(60, 4)]
    model.fit(FitJob(FeedbackSet.of(train), FeedbackSet(), base=policy))
    only = Pairwise(**QUICK)
    only.fit(FitJob(FeedbackSet.of(train[:60]), FeedbackSet(), base=policy))
    gap, wide = (np.subtract(*scores(m, "good plan river", "plan river").mean) for m in (model, only))
    assert 0 < gap < wide


@pytest.mark.parametrize("train", [0, 9])
def test_nothing_to_learn_from(policy, train):
    with pytest.raises(TrainingError, match="no preference to learn from") as error:
        Pairwise().fit(job(policy, tied, train=train, validation=0))
    assert "ask.questions" in error.value.remedy


def test_no_policy_to_start_from():
    with pytest.raises(TrainingError, match="no language-model policy"):
        Pairwise().fit(job(None, comparisons, train=9))


def test_unfitted_has_no_scores(tmp_path):
    with pytest.raises(RlhfError, match="learnt nothing"):
        scores(Pairwise(), "x")


def test_few_held_out_pairs(policy):
    run = Listener()
    metrics = Pairwise(run=run, epochs=2).fit(job(policy, comparisons, train=30, validation=5))
    assert any("too few" in note for note in run.notes)
    assert metrics["reward_temperature"].value == 1
    assert metrics["reward_best_epoch"].value == 2
    assert "reward_accuracy" in metrics


def test_a_model_from_a_folder(policy, tmp_path):
    policy.lm.save(tmp_path)
    model = Pairwise(model=str(tmp_path), max_prompt_tokens=40, max_answer_tokens=20, **QUICK)
    assert model.fit(job(None, comparisons, train=60))["reward_accuracy"].value > 0.8


def test_long_answers_are_cut_but_end(fitted):
    model, _ = fitted
    _, (tokens,) = model._tokens([Prompt(text="x")], ["plan " * 200])
    assert len(tokens) == model.max_answer_tokens
    assert tokens[-1] == model.format.eos_id


def test_going_on_from_the_last_round(policy, fitted):
    work = job(policy, comparisons, train=20, validation=40)
    work = FitJob(work.train, work.validation, previous=fitted[0], base=policy)
    on = Pairwise(continue_from="previous", epochs=1, lr=1e-5).fit(work)
    anew = Pairwise(epochs=1, lr=1e-5).fit(work)
    assert on["reward_auc"].value > 0.95 > anew["reward_auc"].value
