"""Made-up feedback in which the word `good` is what people like, for tests of reward models on texts."""

from __future__ import annotations

import random

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.plugins import FitJob, LanguageModelPolicy
from rlhf_core.records import Answer, Prompt, Question, Sample

WORDS = ["town", "council", "bridge", "school", "river", "vote", "plan", "storm", "mayor", "park"]
SMALL = Starter(vocab_size=320, layers=1, width=32, heads=2)
QUICK = {"epochs": 4, "batch": 16, "lr": 1e-2, "patience": 9}


class Given(LanguageModelPolicy):
    """A policy that is nothing but a language model."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm


def small_policy():
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*WORDS, "good"], k=8)) for _ in range(100)]
    return Given(make_starter(texts, shape=SMALL, max_prompt_tokens=48, max_new_tokens=48, seed=1))


def text(rng, goods):
    words = rng.choices(WORDS, k=rng.randint(2, 6))
    for _ in range(goods):
        words.insert(rng.randrange(len(words) + 1), "good")
    return " ".join(words)


def questions(n, seed, goods=(0, 1), round_=0):
    """Questions about samples with so many `good`s each, in random order."""
    rng = random.Random(seed)
    for i in range(n):
        prompt = Prompt(text=f"Headline {seed} {i}: {text(rng, 0)}")
        counts = rng.sample(goods, len(goods))
        samples = tuple(Sample(prompt_id=prompt.id, text=text(rng, count), round=round_) for count in counts)
        yield Question(prompt=prompt, samples=samples), counts


def job(base, answers, train=120, validation=40, **options):
    """`answers(n, seed)` gives the feedback."""
    return FitJob(
        FeedbackSet.of(answers(train, 1)), FeedbackSet.of(answers(validation, 2)) if validation else FeedbackSet(),
        base=base, **options,
    )  # fmt: skip


def comparisons(n, seed, says=lambda rng, counts: counts, **options):
    """Comparisons of two texts by their `good`s, or by what `says` makes of them."""
    rng = random.Random(f"says {seed}")
    for question, counts in questions(n, seed, **options):
        yield Answer(question=question, feedback=question.compare(says(rng, counts), annotator="a"))


def tied(n, seed):
    """Nobody sees a difference."""
    return comparisons(n, seed, says=lambda rng, counts: (0, 0))


def scores(model, *texts):
    prompt = Prompt(text="Headline 2 7: council vote plan")
    return model.score([prompt] * len(texts), [Sample(prompt_id=prompt.id, text=text) for text in texts])
