"""How well the better of two headlines can be told: length alone, TF-IDF, and a reward model, on one held-out split.

    python benchmarks/headlines.py [--pipeline FILE] [--reward FOLDER_OR_JSONL] [--json]

The pairs are those that the pipeline's own data entry gives (all of them, where the pipeline thins them out), split by
A/B test exactly as training splits them. `--reward` adds a reward model: a folder that the pipeline's `reward` plugin
saved, or a JSONL file with a `score` for each held-out `text` (and `prompt`, where the score depends on it).
Accuracy is that of pairs; its 95 % interval resamples whole tests. `significant` are the pairs whose click rates differ
with |z| > 1.96 in a two-proportion test. Ratings have no such test: there it is the pairs that differ at all.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.errors import DataError
from rlhf_core.feedback.dataset import FeedbackSet, Pair
from rlhf_core.metrics import Metric
from rlhf_core.pipeline.yaml_source import Document
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Prompt, Sample

SIGNIFICANT = math.erf(1.96 / math.sqrt(2))
"""A pair's strength |2p - 1|, where p = Phi(z), from which |z| > 1.96."""
Judge = Callable[[Sequence[Pair]], np.ndarray]
"""For each of n pairs a number that is positive where the first is judged better, negative where the second is."""


def pairs_of(pipeline: dict[str, Any], registry: Registry) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train and to test on, without ties."""
    answers = []
    for entry in pipeline["data"]:
        use = Use(**{name: value for name, value in entry.items() if name != "max_pairs_per_group"})
        answers += registry.create("data_sources", use).feedback()
    whole = FeedbackSet.of(answers)
    train, test = (
        [pair for pair in whole.split(name).pairs() if pair.probability != 0.5] for name in ("train", "test")
    )
    if not train or not test:
        raise DataError(
            "the data has no pairs on both sides of the split", remedy="It needs clicks, choices or ratings."
        )
    return train, test


def by_length(train: Sequence[Pair]) -> Judge:
    """Longer is better, or worse: whichever was right more often in training."""

    def longer(pairs: Sequence[Pair]) -> np.ndarray:
        return np.array([len(pair.first.text or "") - len(pair.second.text or "") for pair in pairs], dtype=float)

    direction = 1.0 if np.mean(np.sign(longer(train)) * better(train)) >= 0 else -1.0
    return lambda pairs: direction * longer(pairs)


def by_tfidf(train: Sequence[Pair]) -> Judge:
    """Logistic regression on the difference of TF-IDF vectors of words and pairs of words; no intercept, so that
    swapping a pair swaps the verdict. Sure pairs count more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit(sorted({sample.text or "" for pair in train for sample in (pair.first, pair.second)}))

    def difference(pairs: Sequence[Pair]) -> Any:
        first, second = (words.transform([getattr(pair, side).text for pair in pairs]) for side in ("first", "second"))
        return first - second

    model = LogisticRegression(fit_intercept=False, max_iter=1000)
    model.fit(difference(train), better(train), sample_weight=[abs(2 * pair.probability - 1) for pair in train])
    return lambda pairs: model.decision_function(difference(pairs))


def by_reward(path: Path, pipeline: dict[str, Any], registry: Registry) -> Judge:
    """A saved reward model, or its predictions."""
    if path.is_dir():
        reward = registry.create("reward_models", Use(**pipeline["reward"]))
        reward.load(path)

        def score(prompts: list[Prompt], samples: list[Sample]) -> np.ndarray:
            return np.array(reward.score(prompts, samples).mean)
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        known = {(row.get("prompt"), row["text"]): float(row["score"]) for row in rows}

        def score(prompts: list[Prompt], samples: list[Sample]) -> np.ndarray:
            keys = [(prompt.content, sample.text) for prompt, sample in zip(prompts, samples, strict=True)]
            try:
                return np.array([known[key] if key in known else known[None, key[1]] for key in keys])
            except KeyError as error:
                what = f"no score for the held-out text {error.args[0][1]!r}"
                raise DataError(what, where=str(path), remedy="Score every text of the test split.") from error

    def judge(pairs: Sequence[Pair]) -> np.ndarray:
        prompts = [pair.prompt for pair in pairs]
        return score(prompts, [p.first for p in pairs]) - score(prompts, [p.second for p in pairs])

    return judge


def better(pairs: Sequence[Pair]) -> np.ndarray:
    """1 where the first is better, -1 where the second is."""
    return np.array([1.0 if pair.probability > 0.5 else -1.0 for pair in pairs])


def accuracy(pairs: Sequence[Pair], verdicts: np.ndarray, resamples: int = 2000) -> Metric:
    """Share of right verdicts, a tied one half right, with a 95 % interval over resampled groups."""
    right = (np.sign(verdicts) * better(pairs) + 1) / 2
    names = [pair.prompt.group or pair.prompt.content for pair in pairs]
    groups = {name: number for number, name in enumerate(dict.fromkeys(names))}
    of = np.array([groups[name] for name in names])
    sums, counts = np.bincount(of, right), np.bincount(of)
    picks = np.random.default_rng(0).integers(0, len(groups), size=(resamples, len(groups)))
    low, high = np.quantile(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), [0.025, 0.975])
    return Metric(value=float(right.mean()), low=float(low), high=float(high), n=len(pairs))


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=Path("deployments/pipelines/headlines.yaml"))
    parser.add_argument("--reward", type=Path, help="a saved reward model, or JSONL of its scores")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    pipeline, registry = Document(options.pipeline).data, Registry()
    train, test = pairs_of(pipeline, registry)
    sure = np.array([abs(2 * pair.probability - 1) > SIGNIFICANT for pair in test])
    judges = {"length": by_length(train), "tfidf": by_tfidf(train)}
    if options.reward:
        judges["reward"] = by_reward(options.reward, pipeline, registry)
    found: dict[str, dict[str, Metric]] = {}
    for name, judge in judges.items():
        verdicts = judge(test)
        found[name] = {"all": accuracy(test, verdicts)}
        if sure.any():
            chosen = [pair for pair, is_sure in zip(test, sure, strict=True) if is_sure]
            found[name]["significant"] = accuracy(chosen, verdicts[sure])
    print(f"{len(train):,} pairs to train on, {len(test):,} held out, {sure.sum():,} of them significant")
    print(f"{'':10}{'all pairs':>22}{'significant':>22}")
    for name, metrics in found.items():
        print(f"{name:10}{metrics['all']!s:>22}{metrics.get('significant', '')!s:>22}")
    if options.json:
        shown = {name: {on: m.model_dump() for on, m in metrics.items()} for name, metrics in found.items()}
        print(json.dumps({"benchmark": "headlines", "train_pairs": len(train), "accuracy": shown}))


if __name__ == "__main__":
    main()
