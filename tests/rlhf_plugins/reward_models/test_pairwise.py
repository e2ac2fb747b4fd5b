import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.model import weights_digest
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import FitJob, LanguageModelPolicy
from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins.reward_models._bradley_terry import (
    batches_by_length,
    fit_temperature,
    groups_of,
    preference_loss,
    set_dropout,
)
from rlhf_plugins.reward_models._fitting import Fitting
from rlhf_plugins.reward_models._scoring import Row, Valuer, joined
from rlhf_plugins.reward_models.pairwise import Pairwise

WORDS = ["town", "council", "bridge", "school", "river", "vote", "plan", "storm", "mayor", "park"]
SMALL = Starter(vocab_size=320, layers=1, width=32, heads=2)
QUICK = {"epochs": 4, "batch": 16, "lr": 1e-2, "patience": 9}


class Given(LanguageModelPolicy):
    """A policy that is nothing but a language model."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm


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
def base():
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*WORDS, "good"], k=8)) for _ in range(100)]
    return Given(make_starter(texts, shape=SMALL, max_prompt_tokens=48, max_new_tokens=48, seed=1))


def text(rng, good):
    words = rng.choices(WORDS, k=rng.randint(2, 6))
    if good:
        words.insert(rng.randrange(len(words) + 1), "good")
    return " ".join(words)


def answers(n, seed, choose=None):
    """Comparisons of a text with the word `good` and one without; `choose(rng, first_is_good)` says who wins."""
    rng = random.Random(seed)
    for i in range(n):
        prompt = Prompt(text=f"Headline {seed} {i}: {text(rng, False)}")
        good_first = rng.random() < 0.5
        samples = tuple(Sample(prompt_id=prompt.id, text=text(rng, good)) for good in (good_first, not good_first))
        question = Question(prompt=prompt, samples=samples)
        choice = choose(rng, good_first) if choose else ("first" if good_first else "second")
        first, second = (sample.id for sample in samples)
        feedback = Comparison(question_id=question.id, annotator="a", first=first, second=second, choice=choice)
        yield Answer(question=question, feedback=feedback)


def job(base, train=120, validation=40, **options):
    return FitJob(
        FeedbackSet.of(answers(train, 1, **options)), FeedbackSet.of(answers(validation, 2, **options)), base=base
    )


def scores(model, *texts):
    prompt = Prompt(text="Headline: council vote")
    return model.score([prompt] * len(texts), [Sample(prompt_id=prompt.id, text=text) for text in texts]).mean


@pytest.fixture(scope="module")
def fitted(base):
    model = Pairwise(run=Listener(), **QUICK)
    return model, model.fit(job(base))


def test_keeps_the_contract(base, rlhf_conformance):
    rlhf_conformance(Pairwise, policy=lambda: base, epochs=1)


def test_learns_what_is_preferred(fitted):
    model, metrics = fitted
    assert metrics["reward_accuracy"].value > 0.95
    assert metrics["reward_auc"].value > 0.95
    assert metrics["reward_accuracy"].n == 40
    assert metrics["reward_train_pairs"].value == 120
    with_word, without = scores(model, "good plan for the river", "plan for the river")
    assert with_word > without
    assert any("accuracy" in figures for _, figures in model.run.logged)


def test_scores_are_centred_on_the_training_samples(fitted):
    model, _ = fitted
    questions = [answer.question for answer in answers(120, 1)]
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
    assert scores(again, "good plan", "storm") == scores(model, "good plan", "storm")
    assert json.loads((tmp_path / "calibration.json").read_text()) == model.calibration == again.calibration
    assert sum(row["pairs"] for row in model.calibration) == 40
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pt"))


def test_the_policy_stays_as_it_is(base):
    before = weights_digest(base.lm)
    Pairwise(epochs=1).fit(job(base, train=20, validation=0))
    assert weights_digest(base.lm) == before


def test_soft_labels_are_calibrated(base):
    # People choose the good one in 3 of 4 cases: no model can be right more often, and it should know.
    def noisy(rng, good_first):
        return "first" if good_first == (rng.random() < 0.75) else "second"

    model = Pairwise(run=Listener(), **QUICK)
    metrics = model.fit(job(base, train=300, validation=200, choose=noisy))
    with_word, without = scores(model, "good plan river", "plan river")
    assert 0.6 < 1 / (1 + math.exp(without - with_word)) < 0.9
    assert metrics["reward_ece"].value < 0.1


def test_order_of_answers_does_not_matter(base):
    given = list(answers(60, 1))
    shuffled = random.Random(3).sample(given, len(given))
    digests = set()
    for train in (given, shuffled):
        model = Pairwise(epochs=1)
        model.fit(FitJob(FeedbackSet.of(train), FeedbackSet.of([]), base=base))
        digests.add(weights_digest(model.scalar))
    assert len(digests) == 1


def test_ties_pull_scores_together(base):
    model = Pairwise(**QUICK)
    train = [*answers(60, 1), *answers(60, 4, choose=lambda rng, first: "tie")]
    model.fit(FitJob(FeedbackSet.of(train), FeedbackSet.of([]), base=base))
    only = Pairwise(**QUICK)
    only.fit(FitJob(FeedbackSet.of(train[:60]), FeedbackSet.of([]), base=base))
    gap, wide = (np.subtract(*scores(m, "good plan river", "plan river")) for m in (model, only))
    assert 0 < gap < wide


@pytest.mark.parametrize("choose", [None, lambda rng, first: "tie"])
def test_nothing_to_learn_from(base, choose):
    with pytest.raises(TrainingError, match="no preference to learn from") as error:
        Pairwise().fit(job(base, train=0 if choose is None else 9, validation=0, choose=choose))
    assert "ask.questions" in error.value.remedy


def test_no_policy_to_start_from():
    with pytest.raises(TrainingError, match="no language-model policy"):
        Pairwise().fit(job(None, train=9))


def test_unfitted_has_no_scores(tmp_path):
    with pytest.raises(RlhfError, match="learnt nothing"):
        scores(Pairwise(), "x")


def test_few_held_out_pairs(base):
    run = Listener()
    metrics = Pairwise(run=run, epochs=2).fit(job(base, train=30, validation=5))
    assert any("too few" in note for note in run.notes)
    assert metrics["reward_temperature"].value == 1
    assert metrics["reward_best_epoch"].value == 2
    assert "reward_accuracy" in metrics


def test_a_model_from_a_folder(base, tmp_path):
    base.lm.save(tmp_path)
    model = Pairwise(model=str(tmp_path), max_prompt_tokens=40, max_answer_tokens=20, **QUICK)
    assert model.fit(job(None, train=60))["reward_accuracy"].value > 0.8


def test_long_answers_are_cut_but_end(fitted):
    model, _ = fitted
    _, (tokens,) = model._tokens([Prompt(text="x")], ["plan " * 200])
    assert len(tokens) == model.max_answer_tokens
    assert tokens[-1] == model.format.eos_id


def test_going_on_from_the_last_round(base, fitted):
    work = job(base, train=20, validation=40)
    work = FitJob(work.train, work.validation, previous=fitted[0], base=base)
    on = Pairwise(continue_from="previous", epochs=1, lr=1e-5).fit(work)
    anew = Pairwise(epochs=1, lr=1e-5).fit(work)
    assert on["reward_auc"].value > 0.95 > anew["reward_auc"].value


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


@pytest.mark.parametrize("survived", [1, 3, 5])
def test_resumed_to_the_bit(base, tmp_path, monkeypatch, survived):
    monkeypatch.setattr("rlhf_plugins.reward_models._fitting.CHECKPOINT_STEPS", 3)
    work = job(base, train=64, validation=30)
    whole = Pairwise(run=Run(5), epochs=3, batch=16)
    expected = whole.fit(work)
    checkpoints = Fragile(tmp_path)
    checkpoints.left = survived
    with pytest.raises(Killed):
        Pairwise(run=Run(5, checkpoints), epochs=3, batch=16).fit(work)
    resumed = Pairwise(run=Run(5, Checkpoints(tmp_path)), epochs=3, batch=16)
    assert resumed.fit(work) == expected
    assert weights_digest(resumed.scalar) == weights_digest(whole.scalar)
    assert resumed.offset == whole.offset


def test_the_best_epoch_is_kept(base):
    model = Pairwise()
    model._start(FitJob(FeedbackSet.of([]), FeedbackSet.of([]), base=base))
    train = model._tensors(FeedbackSet.of(answers(32, 1)).pairs())
    losses, digests = iter([0.6, 0.5, 0.55, 0.56, 0.1]), []

    def validate():
        digests.append(weights_digest(model.scalar))
        return next(losses)

    options = {"batch": 16, "lr": 1e-3, "weight_decay": 0.0}
    state = Fitting(model._valuer, train, Run(), epochs=9, patience=1, validate=validate, **options).fit()
    assert (state.best_epoch, state.epochs) == (2, 4)
    assert weights_digest(model.scalar) == digests[1]


def test_a_loss_that_is_no_number_never_reaches_the_weights(base):
    model = Pairwise()
    model._start(FitJob(FeedbackSet.of([]), FeedbackSet.of([]), base=base))
    train = model._tensors(FeedbackSet.of(answers(8, 1)).pairs())
    before = weights_digest(model.scalar)
    broken = replace(train, stated=np.full(8, np.nan))
    fitting = Fitting(
        model._valuer, broken, Run(), epochs=1, batch=8, lr=1e-3, weight_decay=0.0, patience=0, validate=None
    )
    with pytest.raises(TrainingError, match="step 1"):
        fitting.fit()
    assert weights_digest(model.scalar) == before


def test_shared_prompts_change_nothing(base):
    model = Pairwise()
    model._start(FitJob(FeedbackSet.of([]), FeedbackSet.of([]), base=base))
    torch.nn.init.normal_(model.scalar.head.weight, generator=torch.Generator().manual_seed(0))
    rows = [Row([5, 6, 7, 8], [[9, 10], [11, 12, 13, 14, 15], [9, 10]]), Row([5, 30], [[16]])]
    valuer = Valuer(model.scalar, 0, torch.float32)
    assert valuer.check(rows)
    packed = valuer.score(rows)
    valuer.packs = False
    assert packed == pytest.approx(valuer.score(rows), abs=1e-5)
    assert packed[0] == pytest.approx(packed[2], abs=1e-5)
    assert valuer.trims
    # One whose last MLP mixes positions is found out.
    mlp = model.scalar.backbone.layers[-1].mlp
    alone = mlp.forward
    mlp.forward = lambda x: alone(x) + x.mean(dim=1, keepdim=True)
    valuer.check(rows)
    assert not valuer.trims
    mlp.forward = alone
    # One that ignores the mask is found out.
    valuer.packs = True
    honest = model.scalar.backbone.forward
    model.scalar.backbone.forward = lambda attention_mask, **options: honest(**options)
    assert not valuer.check(rows)


def test_loss_by_hand():
    margins, stated = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.25])
    first = math.log(1 + math.exp(-2))
    second = 0.25 * math.log(1 + math.exp(1)) + 0.75 * math.log(1 + math.exp(-1))
    found = preference_loss(margins, stated, torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx((first + 3 * second) / 2, rel=1e-6)
    swapped = preference_loss(-margins, 1 - stated, torch.tensor([1.0, 3.0]))
    assert swapped.item() == pytest.approx(found.item(), rel=1e-6)


def test_temperature_equals_scipy():
    rng = np.random.default_rng(0)
    margins, weight = rng.normal(size=200) * 3, rng.integers(1, 4, 200).astype(float)
    stated = (rng.random(200) < 1 / (1 + np.exp(-margins / 2.5))).astype(float)

    def loss(log_t):
        scaled = margins / np.exp(log_t)
        return np.average(np.logaddexp(0, -scaled) * stated + np.logaddexp(0, scaled) * (1 - stated), weights=weight)

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(margins, stated, weight) == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(margins, 1.0 - (margins > 0), weight) == pytest.approx(20)
    assert fit_temperature(margins, 1.0 * (margins > 0), weight) == pytest.approx(0.05)


def test_batches_hold_everything_once():
    lengths = np.random.default_rng(0).integers(5, 100, 1000)
    alone = groups_of([None] * 1000)
    batches = batches_by_length(lengths, alone, 16, np.random.default_rng([0, 0]))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 15
    other = batches_by_length(lengths, alone, 16, np.random.default_rng([0, 1]))
    assert any(set(a) != set(b) for a, b in zip(batches, other, strict=True))
    assert batches_by_length(lengths[:0], alone[:0], 16, np.random.default_rng(0)) == []


def test_items_that_share_something_are_in_one_batch():
    rng = np.random.default_rng(0)
    shared = [*rng.integers(0, 150, 860), *[500] * 40]
    groups, lengths = groups_of(shared), rng.integers(5, 100, 900)
    assert all((groups[i] == groups[j]) == (shared[i] == shared[j]) for i in range(40) for j in range(900))
    counts, together = set(), set()
    for epoch in range(20):
        batches = batches_by_length(lengths, groups, 32, np.random.default_rng([0, epoch]))
        assert sorted(np.concatenate(batches)) == list(range(900))
        assert max(map(len, batches)) == 32
        counts.add(len(batches))
        # A batch's border may cut a group in two, nothing else does; but one prompt of everything is no group.
        small = [groups[batch][groups[batch] != groups[-1]] for batch in batches]
        assert sum(len(set(here)) for here in small) <= len(set(groups)) - 1 + len(batches)
        together.add(frozenset(frozenset(batch[groups[batch] == groups[-1]]) for batch in batches))
    assert counts == {29}, "resuming counts on equally many steps in every epoch"
    assert len(together) == 20


def test_rows_of_one_prompt_are_joined():
    rows = [Row([1, 2], [[5], [6]]), Row([1, 2, 3], [[5]]), Row([1, 2], [[6], [7, 8]]), Row([1, 2], [[5], [7, 8]])]
    found, places = joined(rows, width=100)
    assert found == [Row([1, 2], [[5], [6], [7, 8]]), Row([1, 2, 3], [[5]])]
    assert places.tolist() == [0, 1, 3, 1, 2, 0, 2]
    many, where = joined([Row([1] * 9, [[i]]) for i in range(20)], width=100)
    assert [len(row.answers) for row in many] == [8, 8, 4]
    assert where.tolist() == list(range(20))
    assert joined([], width=100)[0] == []


def test_long_answers_to_a_short_prompt_are_not_joined():
    # Joined: 21 (24 + 21) = 945 instead of 11 (24 + 11) = 385, which is 560 more; alone: 385 more.
    rows = [Row([1], [[2] * 10, [3] * 10])]
    assert joined(rows, width=4)[0] == [Row([1], [[2] * 10]), Row([1], [[3] * 10])]
    # 21 (60 + 21) - 11 (60 + 11) = 920 against 781; with a prompt of 5 tokens 25 (60 + 25) - 15 (60 + 15) = 1000
    # against 1125.
    assert len(joined(rows, width=10)[0]) == 2
    assert len(joined([Row([1] * 5, rows[0].answers)], width=10)[0]) == 1


def test_joined_rows_teach_the_same(base):
    """Values and gradients of all pairs of four answers, against a plain forward pass of every answer alone."""
    model = Pairwise()
    model._start(FitJob(FeedbackSet.of([]), FeedbackSet.of([]), base=base))
    scalar = model.scalar.eval()
    torch.nn.init.normal_(scalar.head.weight, generator=torch.Generator().manual_seed(0))
    answers = [[9, 10, 2], [11, 12, 13, 14, 2], [30, 2], [31, 32, 33, 2]]
    rows = [Row([5, 6, 7, 8], [answers[i], answers[j]]) for i in range(4) for j in range(i)]

    def gradients(values):
        scalar.zero_grad()
        preference_loss(values[0::2] - values[1::2], torch.full((6,), 0.9), torch.ones(6)).backward()
        return torch.cat([p.grad.flatten() for p in scalar.parameters() if p.grad is not None])

    values = Valuer(scalar, 0, torch.float32).values(rows)
    plain = torch.cat(
        [
            scalar.last_token_values(torch.tensor([row.prompt + answer]), torch.ones(1, 4 + len(answer)).long())
            for row in rows
            for answer in row.answers
        ]
    )
    assert values.tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    assert torch.allclose(gradients(values), gradients(plain), atol=1e-5)


def test_dropout_leaves_attention_to_the_fused_kernels():
    from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

    shape = {"num_hidden_layers": 1, "vocab_size": 20}
    llama = LlamaModel(LlamaConfig(hidden_size=8, intermediate_size=8, num_attention_heads=2, **shape))
    gpt2 = GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20))
    for model in (llama, gpt2):
        set_dropout(model, 0.25)
    assert llama.layers[0].self_attn.attention_dropout == 0
    block = gpt2.h[0]
    assert (block.attn.attn_dropout.p, block.attn.resid_dropout.p, block.mlp.dropout.p, gpt2.drop.p) == (0, *[0.25] * 3)
