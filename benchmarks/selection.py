"""How many labels active selection saves: labels needed for the same held-out accuracy as by lot.

    python benchmarks/selection.py [--selectors uncertainty disagreement ...] [--seeds 5] [--labels 400] [--step 40]
                                   [--articles 1200] [--json]

The demo's task: headlines of made-up articles, six for each in all styles, asked about two by two; a panel of noisy
simulated raters answers. The reward model is an ensemble of four small networks on words. Every selector begins with
the same 40 questions drawn by lot, without a control arm, and asks `step` more at a time about articles not asked about
before. Held-out accuracy is that of the ensemble's order of two headlines of articles that nobody is ever asked about,
by the judge without noise. The labels that a selector needs are read off its accuracy, made monotonous, where it
reaches what `random` has with all its labels; `saving` is the share of random's labels that it does without, with a
95 % bootstrap interval over seeds. A seed draws other articles, raters' moods and networks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.metrics import bootstrap
from rlhf_core.plugins import Candidate, FitJob, RewardModel, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Question, Sample
from rlhf_core.run import Run
from rlhf_core.splits import split_of

BEGIN = 40
HEADLINES = 6
REWARD = {"use": "ensemble", "copies": 4, "members": [{"use": "feed_forward", "epochs": 12, "batch": 16}]}


def candidates(registry: Registry, articles: int, seed: int) -> list[Candidate]:
    """Articles with different headlines each."""
    source = registry.create(
        "data_sources", Use(use="newsroom", prompts=articles, demonstrations=HEADLINES * articles, seed=seed)
    )
    found: dict[str, tuple[Any, dict[str, Sample]]] = {}
    for answer in source.demonstrations():
        prompt = answer.question.prompt
        _, samples = found.setdefault(prompt.id, (prompt, {}))
        sample = Sample(prompt_id=prompt.id, text=answer.feedback.text)
        samples[sample.id] = sample
    return [Candidate(prompt, list(samples.values())) for prompt, samples in found.values() if len(samples) > 1]


def truth(judge: RewardModel, held_out: Sequence[Candidate]) -> tuple[list[Any], list[Any], np.ndarray]:
    """Every pair of headlines of every held-out article: prompts, samples, which is better by the judge."""
    prompts = [c.prompt for c in held_out for _ in combinations(c.samples, 2)]
    pairs = [pair for c in held_out for pair in combinations(c.samples, 2)]
    scores = np.array(judge.score([p for p in prompts for _ in "ab"], [s for pair in pairs for s in pair]).mean)
    gaps = scores[0::2] - scores[1::2]
    kept = np.flatnonzero(gaps)
    return [prompts[i] for i in kept], [pairs[i] for i in kept], np.sign(gaps[kept])


def curve(selector: str, options: argparse.Namespace, seed: int, registry: Registry) -> tuple[list[int], list[float]]:
    """Labels and held-out accuracies, after the beginning and after every step."""
    pool = candidates(registry, options.articles, seed)
    judge = registry.create("reward_models", Use(use="principles"))
    panel = registry.create("annotators", Use(use="simulated_panel", raters=5, seed=seed))
    prompts, pairs, better = truth(judge, [c for c in pool if split_of(c.prompt) == "test"])
    training = [c for c in pool if split_of(c.prompt) == "train"]
    validation_pool = [c for c in pool if split_of(c.prompt) == "validation"]

    def ask(questions: Sequence[Question]) -> list[Answer]:
        by_id = {question.id: question for question in questions}
        given = [Answer(question=by_id[f.question_id], feedback=f) for f in panel.annotate(list(questions))]
        return [answer for answer in given if answer.feedback.kind == "comparison"]

    by_lot = registry.create("selectors", Use(use="random"), Run(seed))
    # Calibration and early stopping need some labels of their own: the same ones for every selector.
    validation = FeedbackSet.of(ask(by_lot.select(validation_pool, BEGIN, None)))
    settings = {} if selector == "random" else {"control": 0.0}
    selecting = registry.create("selectors", Use(use=selector, **settings), Run(seed))
    labels, accuracies, answers, asked = [], [], [], set()
    reward: RewardModel | None = None
    while len(answers) < options.labels:
        first = reward is None
        left = [c for c in training if c.prompt.id not in asked]
        questions = (by_lot if first else selecting).select(left, BEGIN if first else options.step, reward)
        if not questions:
            break
        asked |= {question.prompt.id for question in questions}
        answers += ask(questions)
        reward = registry.create("reward_models", Use(**REWARD), Run(seed))
        reward.fit(FitJob(train=FeedbackSet.of(answers), validation=validation))
        scores = np.array(reward.score([p for p in prompts for _ in "ab"], [s for pair in pairs for s in pair]).mean)
        gaps = scores[0::2] - scores[1::2]
        labels.append(len(answers))
        accuracies.append(float(((np.sign(gaps) * better + 1) / 2).mean()))
    return labels, accuracies


def needed(labels: Sequence[int], accuracies: Sequence[float], target: float) -> float:
    """Labels at which the accuracy, made monotonous, reaches `target`; infinity where it never does."""
    best = np.maximum.accumulate(accuracies)
    if best[-1] < target:
        return float("inf")
    at = int(np.argmax(best >= target))
    if at == 0 or best[at] == best[at - 1]:
        return float(labels[at])
    share = (target - best[at - 1]) / (best[at] - best[at - 1])
    return float(labels[at - 1] + share * (labels[at] - labels[at - 1]))


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["uncertainty", "disagreement", "expected_information", "diversity"]
    parser.add_argument("--selectors", nargs="+", default=known, help="selector plugins to compare with `random`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=400, help="labels at the end")
    parser.add_argument("--step", type=int, default=40, help="labels between two fits")
    parser.add_argument("--articles", type=int, default=1200, help="articles, held-out ones included")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    registry = Registry()
    curves: dict[str, list[Any]] = {name: [] for name in ("random", *options.selectors)}
    for seed in range(options.seeds):
        for name in curves:
            labels, accuracies = curve(name, options, seed, registry)
            curves[name].append({"labels": labels, "accuracy": accuracies})
            print(f"seed {seed}  {name:22} {labels[-1]:5} labels: accuracy {accuracies[-1]:.3f}", flush=True)
    found: dict[str, Any] = {}
    print(f"\n{'selector':22} {'final accuracy':>22} {'labels saved':>24}  never reached")
    for name, runs in curves.items():
        final = bootstrap([run["accuracy"][-1] for run in runs])
        saved, never = [], 0
        for run, lot in zip(runs, curves["random"], strict=True):
            target = max(lot["accuracy"])
            labels = needed(run["labels"], run["accuracy"], target)
            never += int(np.isinf(labels))
            # One that never gets there saved nothing; it may have needed any number.
            saved.append(1 - min(labels, lot["labels"][-1]) / needed(lot["labels"], lot["accuracy"], target))
        saving = bootstrap(saved)
        print(f"{name:22} {final!s:>22} {saving!s:>24}  {never} of {len(runs)}")
        found[name] = {"final": final.model_dump(), "saving": saving.model_dump(), "never": never, "runs": runs}
    if options.json:
        print(json.dumps({"benchmark": "selection", "selectors": found}))


if __name__ == "__main__":
    main()
