import json

import pytest
import torch
from texts_kit import comparisons, job, scores

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import FitJob
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins.reward_models._features import FeatureNetwork, Features, grams
from rlhf_plugins.reward_models.feed_forward import FeedForward

QUICK = {"epochs": 8, "batch": 16, "patience": 9}


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(FeedForward, epochs=1)
    rlhf_conformance(FeedForward, epochs=1, hidden=0)


@pytest.mark.parametrize("hidden", [0, 32])
def test_learns_what_is_preferred(hidden, tmp_path):
    model = FeedForward(hidden=hidden, lr=1e-2 if hidden else 1e-1, **QUICK)
    metrics = model.fit(job(None, comparisons, train=200))
    assert metrics["reward_accuracy"].value > 0.95
    found = scores(model, "good plan for the river", "plan for the river", "")
    assert found.mean[0] > found.mean[1]
    model.save(tmp_path)
    again = FeedForward(hidden=hidden)
    again.load(tmp_path)
    assert scores(again, "good plan", "storm", "") == scores(model, "good plan", "storm", "")
    assert "good" in json.loads((tmp_path / "vocabulary.json").read_text())["words"]


def test_words_in_any_script():
    assert grams("Good day") == ["good", "day", "good day"]
    assert "医" in grams("两家医院")


def test_values_are_sums_of_weighted_features():
    features = Features.of(["a b", "b c", "a c c"], 100, 1)
    network = FeatureNetwork(len(features), 0, 0.0, 0)
    torch.nn.init.normal_(network.scalar.bag.weight)
    rows = features.rows([["a c c", ""], ["b"]])
    dense = features.vectorizer.transform(["a c c", "", "b"]).toarray()
    expected = dense @ network.scalar.bag.weight.detach().numpy().squeeze(1)
    assert network.score(rows) == pytest.approx(expected, abs=1e-6)
    again = Features.from_json(json.loads(json.dumps(features.to_json())))
    assert (again.vectorizer.transform(["a c c", "b x"]) != features.vectorizer.transform(["a c c", "b x"])).nnz == 0


def test_no_word_occurs_often_enough():
    with pytest.raises(TrainingError, match="no word"):
        FeedForward(rarest=10_000).fit(job(None, comparisons, train=9))


def test_resumed_to_the_bit(tmp_path):
    class Killed(Exception):
        pass

    class Fragile(Checkpoints):
        left = 2

        def save(self, step, write):
            super().save(step, write)
            self.left -= 1
            if not self.left:
                raise Killed

    work = job(None, comparisons)
    whole = FeedForward(run=Run(3), **QUICK)
    expected = whole.fit(work)
    with pytest.raises(Killed):
        FeedForward(run=Run(3, Fragile(tmp_path)), **QUICK).fit(work)
    resumed = FeedForward(run=Run(3, Checkpoints(tmp_path)), **QUICK)
    assert resumed.fit(work) == expected
    assert weights_digest(resumed._valuer.scalar) == weights_digest(whole._valuer.scalar)


def test_going_on_with_a_replay(tmp_path):
    first = FeedForward(**QUICK)
    first.fit(job(None, comparisons))
    assert first.newest == 0

    def both(n, seed):
        yield from comparisons(n, seed)
        yield from comparisons(n // 4, seed + 10, round_=1)

    work = job(None, both)
    options = {**QUICK, "continue_from": "previous", "epochs": 1, "lr": 1e-4}
    second = FeedForward(replay=20, **options)
    metrics = second.fit(FitJob(work.train, work.validation, previous=first))
    # The 30 new pairs and 20 of the 120 old ones; what the first round learnt is still there.
    assert metrics["reward_train_pairs"].value == 50
    assert metrics["reward_accuracy"].value > 0.95
    assert second.newest == 1
    everything = FeedForward(**options).fit(FitJob(work.train, work.validation, previous=first))
    assert everything["reward_train_pairs"].value == 150
    # Without a model to go on from there is nothing to remember by.
    anew = FeedForward(replay=20, **{**QUICK, "continue_from": "base"})
    assert anew.fit(FitJob(work.train, work.validation, previous=first))["reward_train_pairs"].value == 150
    second.save(tmp_path)
    again = FeedForward()
    again.load(tmp_path)
    assert again.newest == 1
