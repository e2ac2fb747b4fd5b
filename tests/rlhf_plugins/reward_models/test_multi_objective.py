import numpy as np
import pytest
from scipy.optimize import minimize
from texts_kit import QUICK, WORDS, job, questions, scores

from rlhf_core.errors import DataError
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_plugins.reward_models._gate import Gate
from rlhf_plugins.reward_models.multi_objective import MultiObjective


def ratings(n, seed):
    """`warmth` is high with `good`; `brevity` is high below six words. Two criteria that pull apart."""
    for question, counts in questions(n, seed, goods=(0, 1)):
        for place, count in enumerate(counts):
            warm = question.rate(place, 5 if count else 1, annotator="a", criterion="warmth")
            yield Answer(question=question, feedback=warm)
            short = len(question.samples[place].text.split()) < 5
            yield Answer(
                question=question, feedback=question.rate(place, 5 if short else 1, annotator="a", criterion="brevity")
            )


def test_keeps_the_contract(policy, rlhf_conformance):
    rlhf_conformance(MultiObjective, policy=lambda: policy, epochs=1)
    rlhf_conformance(MultiObjective, policy=lambda: policy, epochs=1, combine="gated")


def test_a_head_for_each_criterion_and_fixed_weights(policy, tmp_path):
    model = MultiObjective(weights={"warmth": 3, "brevity": -1}, **QUICK)
    metrics = model.fit(job(policy, ratings))
    assert model.criteria == ("brevity", "warmth")
    assert metrics["reward_spearman_warmth"].value > 0.7
    found = scores(model, "plan town river", "good plan town river")
    assert found.criteria["warmth"][1] - found.criteria["warmth"][0] > 0.4
    raw = (np.array(found.criteria["warmth"]) * 3 - np.array(found.criteria["brevity"])) / 4
    assert found.mean == pytest.approx(((raw - model.offset) / model.temperature).tolist())
    model.save(tmp_path)
    again = MultiObjective(weights={"warmth": 3, "brevity": -1}, **QUICK)
    again.load(tmp_path)
    assert scores(again, "good plan") == scores(model, "good plan")


def test_a_criterion_that_nobody_rated(policy):
    with pytest.raises(DataError, match="`beauty`") as error:
        MultiObjective(criteria=("beauty",)).fit(job(policy, ratings, train=9))
    assert "brevity, warmth" in error.value.remedy
    with pytest.raises(DataError, match="`beauty`"):
        MultiObjective(weights={"beauty": 1}).fit(job(policy, ratings, train=9))


def test_the_gate_equals_scipy():
    rng = np.random.default_rng(0)
    states, gaps = rng.normal(size=(80, 3)), rng.normal(size=(80, 2))
    stated = (rng.random(80) < 1 / (1 + np.exp(-3 * np.where(states[:, 0] > 0, gaps[:, 0], gaps[:, 1])))).astype(float)
    weight = rng.integers(1, 4, 80).astype(float)
    gate = Gate.fit(states, gaps, stated, weight, decay=1e-2)
    x = (states - states.mean(0)) / (states.std(0) + 1e-6)

    def loss(flat, W=None):
        matrix, bias, log_scale = flat[:6].reshape(3, 2), flat[6:8], flat[8]
        logits = x @ matrix / 3**0.5 + bias
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        margin = np.exp(log_scale) * (shares * gaps).sum(1)
        losses = np.logaddexp(0, -margin) * stated + np.logaddexp(0, margin) * (1 - stated)
        return (weight / weight.mean() * losses).mean() + 1e-2 * (flat**2).sum()

    best = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-8})
    ours = np.concatenate([(gate.weight * 3**0.5).ravel(), gate.bias, [np.log(gate.scale)]])
    assert loss(ours) == pytest.approx(best.fun, abs=1e-6)
    # What matters depends on the first number of the state.
    assert gate.weights(np.array([[2.0, 0, 0]]))[0, 0] > 0.6 > 0.4 > gate.weights(np.array([[-2.0, 0, 0]]))[0, 0]


def gated(n, seed):
    """Prompts about a storm want warmth, the others brevity; comparisons say so, ratings tell the criteria."""
    yield from ratings(n, seed)
    rng = np.random.default_rng(seed)
    for i in range(2 * n):
        storm = bool(rng.integers(2))
        prompt = Prompt(text=f"{seed} {i} {'storm' if storm else 'school'}")
        words = list(rng.choice(WORDS, 7))
        texts = (" ".join(words[:2]), " ".join(["good", *words]))
        question = Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in texts))
        yield Answer(question=question, feedback=question.compare([not storm, storm], annotator="a"))


def test_the_gate_looks_at_the_prompt(policy, tmp_path):
    options = {**QUICK, "combine": "gated", "gate_decay": 1e-3}
    model = MultiObjective(**options)
    metrics = model.fit(job(policy, gated, train=80, validation=30))
    # Held-out preferences only: the ratings on single criteria say something else.
    assert metrics["reward_accuracy"].n == 60
    texts = ["town council", "good town council bridge school river vote"]

    def gap(about):
        prompt = Prompt(text=f"9 9 {about}")
        samples = [Sample(prompt_id=prompt.id, text=text) for text in texts]
        short, warm = model.score([prompt] * 2, samples).mean
        return warm - short

    assert gap("storm") > gap("school") + 0.3
    before = gap("storm")
    model.save(tmp_path)
    model = MultiObjective(**options)
    model.load(tmp_path)
    assert gap("storm") == before
