"""How many labels active selection saves: labels needed for the same held-out accuracy as by lot.

    python benchmarks/selection.py [--selectors uncertainty ...] [--reward bayesian | ensemble]
                                   [--raters noisy | exact] [--seeds 5] [--labels 460] [--step 60] [--figure FILE.svg]
                                   [--json]

The demo's task: headlines of made-up articles, six for each in all styles, asked about two by two; a panel of five
simulated raters answers. Every selector begins with the same 40 questions drawn by lot, without a control arm, and then
picks `--step` more at a time out of all pairs of headlines of `--offered` articles that were not asked about before.
The reward model is fitted anew after every step. Held-out accuracy is that of its order of two headlines of articles
that nobody is ever asked about, by what the raters value on average, without their noise, slips and habits. With
`--raters exact` they all have the judge's values and make no mistakes. A seed draws other articles, raters and weights.

Accuracies are averaged over seeds and made monotonous (isotonic regression). `ratio` are the labels at which a selector
reaches what `random` ends with, over the labels at which `random` itself does; 0.5 is half as many. Intervals are 95 %
bootstrap intervals over seeds, the same seeds for both; one that never gets there needs infinitely many. `--reward
ensemble` asks the same of four small networks on TF-IDF features that do not see the article.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
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
REWARDS: dict[str, dict[str, Any]] = {
    "bayesian": {"use": "bayesian"},
    "ensemble": {"use": "ensemble", "copies": 4, "members": [{"use": "feed_forward", "epochs": 12, "batch": 16}]},
}
RATERS: dict[str, dict[str, Any]] = {
    "noisy": {},
    "exact": dict.fromkeys(
        ("values_spread", "temperature", "flip", "tie_below", "skip", "position_bias", "length_bias"), 0.0
    ),
}
RESAMPLES = 1000


@cache
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


def truth(panel: Any, judge: RewardModel, held_out: Sequence[Candidate]) -> tuple[list[Any], list[Any], np.ndarray]:
    """Every pair of headlines of every held-out article: prompts, samples, which one the raters value more."""
    prompts = [c.prompt for c in held_out for _ in combinations(c.samples, 2)]
    pairs = [pair for c in held_out for pair in combinations(c.samples, 2)]
    criteria = judge.score([p for p in prompts for _ in "ab"], [s for pair in pairs for s in pair]).criteria
    values = sum(
        np.mean([rater.factor(name) for rater in panel.raters]) * np.array(points) for name, points in criteria.items()
    )
    gaps = values[0::2] - values[1::2]
    kept = np.flatnonzero(gaps)
    return [prompts[i] for i in kept], [pairs[i] for i in kept], np.sign(gaps[kept])


def differences(reward: RewardModel, prompts: Sequence[Any], pairs: Sequence[Any]) -> np.ndarray:
    """Score of the first less that of the second."""
    scores = np.array(reward.score([p for p in prompts for _ in "ab"], [s for pair in pairs for s in pair]).mean)
    return scores[0::2] - scores[1::2]


def curve(selector: str, options: argparse.Namespace, seed: int, registry: Registry) -> dict[str, list[float]]:
    """Labels and held-out accuracies, after the beginning and after every step."""
    pool = candidates(registry, options.articles, seed)
    judge = registry.create("reward_models", Use(use="principles"))
    panel = registry.create("annotators", Use(use="simulated_panel", seed=seed, **RATERS[options.raters]))
    prompts, pairs, better = truth(panel, judge, [c for c in pool if split_of(c.prompt) == "test"])
    training = [c for c in pool if split_of(c.prompt) == "train"]
    validation_pool = [c for c in pool if split_of(c.prompt) == "validation"]

    def ask(questions: Sequence[Question]) -> list[Answer]:
        by_id = {question.id: question for question in questions}
        given = [Answer(question=by_id[f.question_id], feedback=f) for f in panel.annotate(list(questions))]
        return [answer for answer in given if answer.feedback.kind == "comparison"]

    by_lot = registry.create("selectors", Use(use="random"), Run(seed))
    # What needs calibration and early stopping needs some labels of its own: the same ones for every selector.
    validation = FeedbackSet.of(ask(by_lot.select(validation_pool, BEGIN, None)))
    settings = {} if selector == "random" else {"control": 0.0}
    selecting = registry.create("selectors", Use(use=selector, **settings), Run(seed))
    order = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"labels": [], "accuracy": []}
    answers: list[Answer] = []
    asked: set[str] = set()
    reward: RewardModel | None = None
    while len(answers) < options.labels:
        first = reward is None
        left = [training[i] for i in order.permutation(len(training)) if training[i].prompt.id not in asked]
        questions = (by_lot if first else selecting).select(
            left[: options.offered], BEGIN if first else options.step, reward
        )
        if not questions:
            break
        asked |= {question.prompt.id for question in questions}
        answers += ask(questions)
        reward = registry.create("reward_models", Use(**REWARDS[options.reward]), Run(seed))
        reward.fit(FitJob(train=FeedbackSet.of(answers), validation=validation))
        gaps = differences(reward, prompts, pairs)
        found["labels"].append(len(answers))
        found["accuracy"].append(float(((np.sign(gaps) * better + 1) / 2).mean()))
    return found


def averaged(runs: Sequence[dict[str, list[float]]], grid: np.ndarray) -> np.ndarray:
    """Mean accuracy over seeds at the labels of `grid`, never falling."""
    from sklearn.isotonic import isotonic_regression

    curves = [np.interp(grid, run["labels"], run["accuracy"]) for run in runs]
    return np.asarray(isotonic_regression(np.mean(curves, axis=0)))


def needed(grid: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """Labels at which a rising curve reaches `target`; infinity where it never does."""
    reached = np.flatnonzero(accuracy >= target - 1e-12)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(grid[0])
    share = (target - accuracy[at - 1]) / (accuracy[at] - accuracy[at - 1])
    return float(grid[at - 1] + share * (grid[at] - grid[at - 1]))


def ratio(ours: Sequence[dict[str, list[float]]], lot: Sequence[dict[str, list[float]]]) -> float:
    """Labels needed over labels needed by lot, for what lot ends with."""
    grid = np.arange(BEGIN, min(max(run["labels"]) for run in (*ours, *lot)) + 1, 5.0)
    by_lot = averaged(lot, grid)
    target = float(by_lot[-1])
    return needed(grid, averaged(ours, grid), target) / needed(grid, by_lot, target)


def compared(ours: Sequence[dict[str, list[float]]], lot: Sequence[dict[str, list[float]]]) -> dict[str, float]:
    """The ratio, with the ends of its interval over seeds."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(0, len(lot), len(lot))
        drawn.append(ratio([ours[i] for i in seeds], [lot[i] for i in seeds]))
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return {"ratio": ratio(ours, lot), "low": float(low), "high": float(high)}


def draw(path: Path, curves: dict[str, list[dict[str, list[float]]]], title: str) -> None:
    """Mean accuracies against labels, with 95 % bootstrap intervals over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, runs in curves.items():
        grid = np.arange(BEGIN, min(max(run["labels"]) for run in runs) + 1, 20.0)
        table = np.array([np.interp(grid, run["labels"], run["accuracy"]) for run in runs])
        metrics = [bootstrap(column.tolist()) for column in table.T]
        (line,) = axes.plot(grid, [m.value for m in metrics], label=name, lw=2)
        low, high = ([getattr(m, end) or m.value for m in metrics] for end in ("low", "high"))
        axes.fill_between(grid, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set(xlabel="labels", ylabel="held-out accuracy", title=f"{title}, {len(runs)} seeds")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["uncertainty", "predictive_information"]
    parser.add_argument("--selectors", nargs="+", default=known, help="selector plugins to compare with `random`")
    parser.add_argument("--reward", choices=list(REWARDS), default="bayesian")
    parser.add_argument("--raters", choices=list(RATERS), default="noisy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--labels", type=int, default=460, help="labels at the end")
    parser.add_argument("--step", type=int, default=60, help="labels between two fits")
    parser.add_argument("--articles", type=int, default=1500, help="articles, held-out ones included")
    parser.add_argument("--offered", type=int, default=250, help="articles that each step may ask about")
    parser.add_argument("--figure", type=Path, help="where to draw accuracy against labels")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    registry = Registry()
    curves: dict[str, list[dict[str, list[float]]]] = {name: [] for name in ("random", *options.selectors)}
    for seed in range(options.first, options.first + options.seeds):
        for name, runs in curves.items():
            began = time.perf_counter()
            runs.append(curve(name, options, seed, registry))
            labels, accuracy = runs[-1]["labels"][-1], runs[-1]["accuracy"][-1]
            seconds = time.perf_counter() - began
            print(f"seed {seed}  {name:22} {labels:5} labels: accuracy {accuracy:.3f}  {seconds:.0f} s", flush=True)
    found: dict[str, Any] = {}
    print(f"\n{'selector':22} {'final accuracy':>22} {'mean over all steps':>22} {'ratio of labels':>24}")
    for name, runs in curves.items():
        final = bootstrap([run["accuracy"][-1] for run in runs])
        whole = bootstrap([float(np.mean(run["accuracy"])) for run in runs])
        told = compared(runs, curves["random"])
        shown = f"{told['ratio']:.2f} [{told['low']:.2f}, {told['high']:.2f}]"
        print(f"{name:22} {final!s:>22} {whole!s:>22} {shown:>24}")
        found[name] = {"final": final.model_dump(), "mean": whole.model_dump(), **told, "runs": runs}
    if options.figure:
        draw(options.figure, curves, f"Newsroom, {options.raters} raters")
    if options.json:
        print(
            json.dumps(
                {"benchmark": "selection", "reward": options.reward, "raters": options.raters, "selectors": found}
            )
        )


if __name__ == "__main__":
    main()
