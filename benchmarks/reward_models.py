"""Kinds of reward models on real feedback, beside length alone and TF-IDF logistic regression, on one held-out split.

    python benchmarks/reward_models.py [--data clickbait17 pandalm ...] [--kinds pairwise ...] [--limit N]
                                       [--folds N] [--model FOLDER] [--epochs N] [--json]
    python benchmarks/reward_models.py --trl --data hh-helpful upworthy [--limit N]

The data sets lie in the folder RLHF_TEST_DATA. Splits are by A/B test, post, dialogue or instruction, as training makes
them: a tenth is tested. With `--folds 5` everything is tested once, by models that were fitted on seven tenths of the
rest and stopped and calibrated on one, which tells small sets apart better.
Accuracy is that of held-out pairs with a winner, with a 95 % interval over prompts; ECE the calibration error of
sigma(score difference); Spearman the rank correlation of scores with people's mean ratings, where there are ratings
(over folds: their mean). Seconds are CPU seconds of a fit. Without `--model` transformers start from a small model of
random weights, with a vocabulary of the training texts: what they reach says what they learn from these labels alone.

`--trl` measures training pairs per CPU second of `pairwise` and of TRL's RewardTrainer on the same pairs, the same
starting weights, batches of 32, one epoch, nothing held out; what either needs for tokens and scaling counts. A
dialogue holds one pair, an A/B test of k headlines k (k - 1) / 2, whose answers `pairwise` computes once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_core import health
from rlhf_core.feedback.dataset import FeedbackSet, Pair
from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob, LanguageModelPolicy, RewardModel, Scores, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Prompt, Question, Sample

DATA = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
PROMPT_TOKENS, ANSWER_TOKENS = 64, 64


def upworthy(registry: Registry) -> Iterator[Answer]:
    """Headlines of A/B tests, compared by clicks."""
    return registry.create(
        "data_sources",
        Use(
            use="table", path=str(DATA / "upworthy/upworthy_clean.parquet"),
            columns={"text": "headline", "clicks": "clicks", "impressions": "impressions",
                     "group": "clickability_test_id"},
            prompt_template="Story: {lede}\nHeadline:", field_characters=120, strip_html=True, min_exposures=500,
            max_pairs_per_group=6, broken_rows="skip",
        ),
    ).feedback()  # fmt: skip


def clickbait17(registry: Registry) -> Iterator[Answer]:
    """Posts with the mean of five grades each."""
    return registry.create(
        "data_sources",
        Use(
            use="table", path=str(DATA / "clickbait17/train.json"),
            columns={"text": "post_text", "score": "truth_mean", "group": "text_id"}, score_low=0, score_high=1,
            prompt_template="Write a headline.",
        ),
    ).feedback()  # fmt: skip


def hh(name: str) -> Callable[[Registry], Iterator[Answer]]:
    """Dialogues, chosen and rejected."""

    def read(registry: Registry) -> Iterator[Answer]:
        path = str(DATA / f"hh-rlhf/{name}-base.test.jsonl.gz")
        return registry.create(
            "data_sources", Use(use="hf_dataset", path=path, format="hh", broken_rows="skip")
        ).feedback()

    return read


def pandalm(registry: Registry) -> Iterator[Answer]:
    """Answers to instructions, compared by three annotators, with ties."""
    for row in json.loads((DATA / "pandalm/testset-v1.json").read_text(encoding="utf-8")):
        prompt = Prompt(text="\n".join(filter(None, [str(row["instruction"]), str(row["input"])])))
        samples = tuple(Sample(prompt_id=prompt.id, text=str(row[f"response{i}"])) for i in (1, 2))
        question = Question(prompt=prompt, samples=samples)
        for who in ("annotator1", "annotator2", "annotator3"):
            scores = {0: (0, 0), 1: (1, 0), 2: (0, 1)}[row[who]]
            yield Answer(question=question, feedback=question.compare(scores, annotator=who, source="person"))


SETS: dict[str, Callable[[Registry], Iterator[Answer]]] = {
    "upworthy": upworthy,
    "clickbait17": clickbait17,
    "hh-harmless": hh("harmless"),
    "hh-helpful": hh("helpful"),
    "pandalm": pandalm,
}
LINEAR: dict[str, Any] = {"use": "feed_forward", "hidden": 0, "epochs": 3}
KINDS: dict[str, dict[str, Any]] = {
    "linear": LINEAR,
    "feed_forward": {"use": "feed_forward"},
    "ensemble": {"use": "ensemble", "members": [{"use": "feed_forward"}], "copies": 3},
    "bayesian": {"use": "bayesian"},
    "pairwise": {"use": "pairwise"},
    "pairwise+linear": {"use": "ensemble", "members": [{"use": "pairwise"}, LINEAR]},
    "ranking": {"use": "ranking"},
    "regression": {"use": "regression"},
    "ordinal": {"use": "regression", "loss": "ordinal"},
}
TRANSFORMERS = ("pairwise", "ranking", "regression")


class Linear(RewardModel):
    """Logistic regression on the difference of two answers' features, without an intercept."""

    def __init__(self, features: Callable[[Sequence[str]], Any]) -> None:
        super().__init__()
        self.features = features
        self.weights: Any = None

    def learn(self, pairs: Sequence[Pair]) -> None:
        """Sure pairs count more."""
        from sklearn.linear_model import LogisticRegression

        decided = [pair for pair in pairs if pair.probability != 0.5]
        first, second = (
            self.features([getattr(pair, side).text or "" for pair in decided]) for side in ("first", "second")
        )
        model = LogisticRegression(fit_intercept=False, max_iter=1000)
        won = [pair.probability > 0.5 for pair in decided]
        model.fit(first - second, won, sample_weight=[abs(2 * pair.probability - 1) for pair in decided])
        self.weights = model.coef_[0]

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Weighted features."""
        return Scores((self.features([sample.text or "" for sample in samples]) @ self.weights).tolist())


def by_length(train: FeedbackSet) -> RewardModel:
    """Characters alone."""
    model = Linear(lambda texts: np.array([[len(text) / 100] for text in texts]))
    model.learn(train.pairs())
    return model


def by_tfidf(train: FeedbackSet) -> RewardModel:
    """Words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pairs = train.pairs()
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit(sorted({sample.text or "" for pair in pairs for sample in (pair.first, pair.second)}))
    model = Linear(words.transform)
    model.learn(pairs)
    return model


class Given(LanguageModelPolicy):
    """A policy that is nothing but a language model."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self.lm = lm


def start_of(train: FeedbackSet, folder: Path | None) -> Given:
    """What transformers start from."""
    if folder is not None:
        options = {"max_prompt_tokens": PROMPT_TOKENS, "max_new_tokens": ANSWER_TOKENS}
        return Given(LanguageModel.from_pretrained(folder, **options))
    texts = [str(sample.text) for answer in train.answers() for sample in answer.question.samples]
    shape = Starter(vocab_size=2048)
    return Given(
        make_starter(texts[:20_000], shape=shape, max_prompt_tokens=PROMPT_TOKENS, max_new_tokens=ANSWER_TOKENS, seed=0)
    )


def thinned(answers: Iterator[Answer], limit: int | None) -> FeedbackSet:
    """About `limit` answers: all of some prompts, evenly from the whole, whatever order the data comes in."""
    found = list(answers)
    if limit is None or len(found) <= limit:
        return FeedbackSet.of(found)
    groups: dict[str, list[Answer]] = {}
    # Posts without a question all answer one prompt.
    whole = len({answer.question.prompt.id for answer in found}) > 1
    for answer in found:
        groups.setdefault(answer.question.prompt.id if whole else answer.question.id, []).append(answer)
    step = len(found) / limit
    kept = [group for i, group in enumerate(groups.values()) if int(i / step) != int((i - 1) / step)]
    return FeedbackSet.of(answer for group in kept for answer in group)


class Parts(NamedTuple):
    """What is learnt from, what stops and calibrates, what is measured on."""

    train: FeedbackSet
    validation: FeedbackSet
    test: FeedbackSet


def parted(feedback: FeedbackSet, folds: int) -> list[Parts]:
    """The split that training makes; or `folds` of them, each with another part as its test."""
    if folds == 1:
        return [Parts(*(feedback.split(split) for split in ("train", "validation", "test")))]
    drawers: list[list[Answer]] = [[] for _ in range(2 * folds)]
    for answer in feedback.answers():
        prompt = answer.question.prompt
        digest = hashlib.sha256(f"fold {prompt.group or prompt.content}".encode()).digest()
        drawers[int.from_bytes(digest[:8], "big") % len(drawers)].append(answer)
    found = []
    for fold in range(folds):
        ahead = drawers[2 * fold :] + drawers[: 2 * fold]
        test, validation, train = ahead[:2], ahead[2:3], ahead[3:]
        found.append(
            Parts(*(FeedbackSet(answer for drawer in part for answer in drawer) for part in (train, validation, test)))
        )
    return found


def measured(models: Sequence[RewardModel], tests: Sequence[FeedbackSet]) -> dict[str, Metric]:
    """Accuracy, ECE, Spearman of models that were fitted to the same data, each on what it has not seen."""
    seen = [health.predict(model, test.pairs()) for model, test in zip(models, tests, strict=True)]
    arrays = {
        name: np.concatenate([getattr(one, name) for one in seen])
        for name in ("predicted", "stated", "weight", "longer")
    }
    found = health.preference_health(
        health.Predictions(**arrays, prompts=[prompt for one in seen for prompt in one.prompts])
    )
    rated = [health.held_out_ratings(model, test) for model, test in zip(models, tests, strict=True)]
    ranks = [one["reward_spearman"].value for one in rated if "reward_spearman" in one]
    if ranks:
        found["reward_spearman"] = Metric(value=float(np.mean(ranks)))
    return {name: found[f"reward_{name}"] for name in ("accuracy", "ece", "spearman") if f"reward_{name}" in found}


def table(name: str, feedback: FeedbackSet, options: argparse.Namespace, registry: Registry) -> dict[str, Any]:
    """All models on one data set."""
    parts = parted(feedback, options.folds)
    bases = [start_of(part.train, options.model) for part in parts]
    rows: dict[str, dict[str, Any]] = {}

    def row(kind: str, make: Callable[[int], RewardModel]) -> None:
        start = time.process_time()
        models = [make(fold) for fold in range(len(parts))]
        seconds = (time.process_time() - start) / len(parts)
        found = measured(models, [part.test for part in parts])
        rows[kind] = {"seconds": seconds, **{key: metric.model_dump() for key, metric in found.items()}}
        accuracy, ece, spearman = (found.get(key) for key in ("accuracy", "ece", "spearman"))
        print(
            f"{name:12} {kind:16} {accuracy!s:>22} {f'{ece.value:.3f}' if ece else '—':>7} "
            f"{f'{spearman.value:.3f}' if spearman else '—':>9} {seconds:8.1f}",
            flush=True,
        )

    row("length", lambda fold: by_length(parts[fold].train))
    row("tfidf", lambda fold: by_tfidf(parts[fold].train))
    rated = "rating" in feedback.kinds()
    for kind in options.kinds:
        settings = KINDS[kind] if options.epochs is None else with_epochs(KINDS[kind], options.epochs)
        if settings["use"] == "regression" and not rated:
            continue

        def make(fold: int, settings: dict[str, Any] = settings) -> RewardModel:
            model: RewardModel = registry.create("reward_models", Use(**settings))
            model.fit(FitJob(train=parts[fold].train, validation=parts[fold].validation, base=bases[fold]))
            return model

        row(kind, make)
    pairs = {part: len(getattr(parts[0], part).pairs()) for part in Parts._fields}
    return {"answers": len(feedback), "folds": len(parts), "pairs_of_first_fold": pairs, "models": rows}


def with_epochs(settings: dict[str, Any], epochs: int) -> dict[str, Any]:
    """A kind's settings with so many epochs for its transformers."""
    if "members" in settings:
        return settings | {"members": [with_epochs(member, epochs) for member in settings["members"]]}
    return settings | {"epochs": epochs} if settings["use"] in TRANSFORMERS else settings


def against_trl(name: str, limit: int | None, registry: Registry, folder: Path | None) -> dict[str, float]:
    """Training pairs per CPU second of both."""
    train = thinned(SETS[name](registry), limit).split("train")
    pairs = len([pair for pair in train.pairs() if pair.probability != 0.5])
    base = start_of(train, folder)
    found = {"pairs": float(pairs)}
    for kind in ("pairwise", "trl_reward"):
        model = registry.create("reward_models", Use(use=kind, epochs=1, batch=32))
        start = time.process_time()
        model.fit(FitJob(train=train, validation=FeedbackSet(), base=base))
        found[kind] = pairs / (time.process_time() - start)
    found["ratio"] = found["pairwise"] / found["trl_reward"]
    print(f"{name:12} {pairs:6} {found['pairwise']:9.1f} {found['trl_reward']:11.1f} {found['ratio']:7.2f}")
    return found


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--limit", type=int, help="about so many answers of each data set")
    parser.add_argument("--folds", type=int, default=1, help="test everything, by so many models of each kind")
    parser.add_argument("--model", type=Path, help="a causal language model that transformers start from")
    parser.add_argument("--epochs", type=int, help="epochs of transformers; default: their own")
    parser.add_argument("--trl", action="store_true", help="measure the speed against TRL's RewardTrainer instead")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    registry = Registry()
    found: dict[str, Any]
    if options.trl:
        print(f"{'data':12} {'pairs':>6} {'pairwise':>9} {'trl_reward':>11} {'ratio':>7}   pairs per CPU second")
        measured_on = {name: against_trl(name, options.limit, registry, options.model) for name in options.data}
        found = {"benchmark": "reward_models_trl", "data": measured_on}
    else:
        print(f"{'data':12} {'model':16} {'accuracy':>22} {'ECE':>7} {'Spearman':>9} {'seconds':>8}")
        tables = {
            name: table(name, thinned(SETS[name](registry), options.limit), options, registry) for name in options.data
        }
        found = {"benchmark": "reward_models", "data": tables}
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
