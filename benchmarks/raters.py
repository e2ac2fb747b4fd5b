"""What Dawid and Skene gain over the majority where annotators are of unequal quality. All annotators are simulated.

    python benchmarks/raters.py [--items 400] [--annotators 15] [--seeds 20] [--figure raters.png] [--json]

Of each pair of samples one is truly better; an annotator names it with a probability of her own: careful ones 0.9,
hasty ones 0.7, and careless ones 0.5, who guess. Every pair is judged by `overlap` annotators drawn by lot. Measured is
the share of pairs whose better sample is found: by the majority (a draw counts one half), by the labels that reward
models learn from with `weigh_annotators` (Dawid-Skene, which knows nothing but the answers), and by a vote with the
annotators' true log-odds, the best that anybody can do. Means over seeds with 95 % bootstrap intervals; a seed draws
other pairs, other annotators and another lot.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.feedback.aggregate import weighed_labels
from rlhf_core.metrics import Metric, bootstrap

METHODS = ("majority", "Dawid-Skene", "true reliabilities")
OVERLAPS = (1, 3, 5, 7, 9)
CARELESS = (0.0, 0.2, 0.4, 0.6)
OVERLAP, SHARE = 5, 0.4
"""Where the other one varies."""


def one(items: int, annotators: int, overlap: int, careless: float, seed: int) -> dict[str, float]:
    """The share of right labels by each method."""
    rng = np.random.default_rng([seed, overlap, round(100 * careless)])
    guessing = round(careless * annotators)
    skill = np.array([0.5] * guessing + [0.9 if i % 2 else 0.7 for i in range(annotators - guessing)])
    truth = rng.integers(0, 2, items)
    who = np.stack([rng.choice(annotators, overlap, replace=False) for _ in range(items)])
    right = rng.random((items, overlap)) < skill[who]
    said = np.where(right, truth[:, None], 1 - truth[:, None])
    pairs = [(f"{i:05}a", f"{i:05}b") for i in range(items)]
    answers = [[(f"{a:03}", float(s)) for a, s in zip(*row, strict=True)] for row in zip(who, said, strict=True)]
    weighed = weighed_labels(dict(zip(pairs, answers, strict=True)))
    posterior = np.array([weighed[pair] for pair in pairs])
    odds = np.log(skill / (1 - skill))[who]
    votes = {
        "majority": (2 * said - 1).sum(1),
        "Dawid-Skene": posterior - 0.5,
        "true reliabilities": ((2 * said - 1) * odds).sum(1),
    }
    return {name: float(((1 + np.sign(vote) * (2 * truth - 1)) / 2).mean()) for name, vote in votes.items()}


def measured(options: argparse.Namespace, overlap: int, careless: float) -> dict[str, Metric]:
    """Each method's share over the seeds, and what Dawid-Skene gains seed by seed."""
    runs = [one(options.items, options.annotators, overlap, careless, seed) for seed in range(options.seeds)]
    figures = {name: bootstrap([run[name] for run in runs]) for name in METHODS}
    return {**figures, "gain": bootstrap([run["Dawid-Skene"] - run["majority"] for run in runs])}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Both sweeps side by side."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    sweeps = (("overlap", "answers to each item", "careless"), ("careless", "share of annotators who guess", "overlap"))
    fixed = {"overlap": OVERLAP, "careless": SHARE}
    for panel, (varied, label, other) in zip(panels, sweeps, strict=True):
        chosen = [row for row in rows if row[other] == fixed[other]]
        chosen.sort(key=lambda row: row[varied])
        for name in METHODS:
            x = [row[varied] for row in chosen]
            panel.plot(x, [row[name].value for row in chosen], marker="o", label=name)
            panel.fill_between(x, [row[name].low for row in chosen], [row[name].high for row in chosen], alpha=0.2)
        panel.set(xlabel=label, title=f"{other} {fixed[other]:g}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("true labels found (simulated annotators)")
    panels[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--annotators", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = sorted({*((overlap, SHARE) for overlap in OVERLAPS), *((OVERLAP, share) for share in CARELESS)})
    rows: list[dict[str, Any]] = [
        {"overlap": overlap, "careless": careless, **measured(options, overlap, careless)}
        for overlap, careless in settings
    ]
    if options.figure:
        draw(rows, options.figure)
    if options.json:
        plain = [{k: v.model_dump() if isinstance(v, Metric) else v for k, v in row.items()} for row in rows]
        print(json.dumps({"items": options.items, "annotators": options.annotators, "rows": plain}))
        return
    print(f"{'overlap':>7} {'careless':>8}  " + "".join(f"{name:<22}" for name in (*METHODS, "gain")))
    for row in rows:
        figures = "".join(f"{row[name]!s:<22}" for name in (*METHODS, "gain"))
        print(f"{row['overlap']:>7} {row['careless']:>8}  {figures}")


if __name__ == "__main__":
    main()
