"""How often the text with the larger click rate is really the better one, on real A/B tests.

    python benchmarks/clicks.py [--data FILE] [--min-exposures N] [--seed N] [--json]

Pairs are those of one test, equal texts added up first, as `table` compares them. Three answers:

- *Significant*: pairs whose rates differ in a two-sided two-proportion z-test at 5 %, each for itself, and with
  Benjamini and Hochberg's control of the false discovery rate at 5 % over all of them (1995).
- *Split half*: each text's impressions are dealt to two halves (clicks then follow the hypergeometric law). How often
  the larger rate of one half is the larger one of the other, too, which nothing was fitted to. Both halves are noisy,
  so this is less than how often either is right.
- *Right*: P(the larger rate is the truly larger one), by an empirical Bayes estimate: true log rate ratios of pairs
  are normal around 0 with a variance that is estimated from the observed ones minus what sampling explains. It is
  checked where it can be: what it predicts for the second half, from the first, against what the second half shows.
  Beside it stands what a label by Phi(z) alone claims (`clicks_to_probability`), which knows no such variance.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control, norm

from rlhf_core.feedback.convert import two_proportion_z
from rlhf_plugins.data_sources.table import Table

UPWORTHY = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data")) / "upworthy" / "upworthy_clean.parquet"
COLUMNS = {"text": "headline", "clicks": "clicks", "impressions": "impressions", "group": "clickability_test_id"}
CONFIDENCE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Texts(NamedTuple):
    """n texts: clicks and impressions of each, and m pairs of their numbers."""

    clicks: np.ndarray
    impressions: np.ndarray
    first: np.ndarray
    second: np.ndarray


def read(path: Path, min_exposures: int) -> Texts:
    """The texts of all tests, and the pairs within each."""
    table = Table(path=path, columns=COLUMNS, clicks_as="reactions", min_exposures=min_exposures)
    numbers: dict[str, list[int]] = {}
    counts = []
    for answer in table.feedback():
        numbers.setdefault(answer.question.prompt.group, []).append(len(counts))
        counts.append((answer.feedback.count, answer.feedback.exposures))  # type: ignore[union-attr]
    pairs = [(a, b) for group in numbers.values() for i, a in enumerate(group) for b in group[i + 1 :]]
    clicks, impressions = np.array(counts).T
    first, second = np.array(pairs).T
    return Texts(clicks, impressions, first, second)


def halves(texts: Texts, dice: np.random.Generator) -> tuple[Texts, Texts]:
    """The same texts with half of the impressions each, dealt without replacement."""
    shown = texts.impressions // 2
    clicked = dice.hypergeometric(texts.clicks, texts.impressions - texts.clicks, shown)
    return (
        texts._replace(clicks=clicked, impressions=shown),
        texts._replace(clicks=texts.clicks - clicked, impressions=texts.impressions - shown),
    )


def z_values(texts: Texts) -> np.ndarray:
    """m two-proportion statistics, positive where the first text's rate is larger."""
    sides = (texts.clicks[texts.first], texts.impressions[texts.first])
    others = (texts.clicks[texts.second], texts.impressions[texts.second])
    return np.array([two_proportion_z(*map(float, row)) for row in zip(*sides, *others, strict=True)])


def log_ratios(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """m log ratios of the rates and their sampling variances, with half a click added everywhere."""
    clicks, impressions = texts.clicks + 0.5, texts.impressions + 1.0
    log_rate, variance = np.log(clicks / impressions), 1 / clicks - 1 / impressions
    return log_rate[texts.first] - log_rate[texts.second], variance[texts.first] + variance[texts.second]


def chance_of_right(difference: np.ndarray, variance: np.ndarray, between: float, noise: np.ndarray) -> np.ndarray:
    """P(a second look has the sign of `difference`), where that look has sampling variance `noise`; 0 for the truth.

    With a true difference ~ N(0, between) and an observed one ~ N(true, variance), the true one given the observed is
    N(s d, s variance), s = between / (between + variance).
    """
    shrink = between / (between + variance)
    return norm.cdf(shrink * np.abs(difference) / np.sqrt(shrink * variance + noise))


def measure(texts: Texts, seed: int) -> dict[str, Any]:
    """All figures."""
    z = z_values(texts)
    p_values = 2 * norm.sf(np.abs(z))
    difference, variance = log_ratios(texts)
    between = float(np.mean(difference**2 - variance))
    seen, held_out = halves(texts, np.random.default_rng(seed))
    z_seen, z_held_out = z_values(seen), z_values(held_out)
    decided = (z_seen != 0) & (z_held_out != 0)
    agree = (np.sign(z_seen) == np.sign(z_held_out))[decided]
    seen_difference, seen_variance = log_ratios(seen)
    _, held_out_variance = log_ratios(held_out)
    seen_between = float(np.mean(seen_difference**2 - seen_variance))
    predicted = chance_of_right(seen_difference, seen_variance, seen_between, held_out_variance)[decided]
    claimed = norm.cdf(np.abs(z_seen) / np.sqrt(2))[decided]
    certain = norm.cdf(np.abs(z))
    right = chance_of_right(difference, variance, between, np.zeros_like(variance))
    return {
        "texts": len(texts.clicks),
        "pairs": len(z),
        "significant": float(np.mean(p_values < 0.05)),
        "significant_fdr": float(np.mean(false_discovery_control(p_values) < 0.05)),
        "split_half_agreement": float(np.mean(agree)),
        "split_half_predicted": float(np.mean(predicted)),
        "split_half_predicted_by_z": float(np.mean(claimed)),
        "right": float(np.mean(right)),
        "right_if_significant": float(np.mean(right[p_values < 0.05])),
        "right_by_z": float(np.mean(certain)),
        "spread_of_true_log_ratios": float(np.sqrt(between)),
        "by_confidence": [
            {
                "phi_z": [low, high],
                "pairs": int(chosen.sum()),
                "right": float(np.mean(right[chosen])),
                "phi_z_mean": float(np.mean(certain[chosen])),
            }
            for low, high in pairwise(CONFIDENCE)
            if (chosen := (certain >= low) & (certain <= high if high == 1 else certain < high)).any()
        ],
        "held_out_by_confidence": [
            {
                "predicted": [low, high],
                "pairs": int(chosen.sum()),
                "predicted_mean": float(np.mean(predicted[chosen])),
                "agreement": float(np.mean(agree[chosen])),
            }
            for low, high in pairwise(CONFIDENCE)
            if (chosen := (predicted >= low) & (predicted < high)).any()
        ],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=UPWORTHY)
    parser.add_argument("--min-exposures", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(read(options.data, options.min_exposures), options.seed)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['pairs']:,} pairs of {found['texts']:,} texts")
    rows = (
        ("significant at 5 %, two-proportion z-test", "significant"),
        ("significant, false discovery rate 5 %", "significant_fdr"),
        ("the larger rate of one half is the larger one of the other", "split_half_agreement"),
        ("  predicted from one half", "split_half_predicted"),
        ("  predicted from one half by z alone", "split_half_predicted_by_z"),
        ("the larger rate is really better", "right"),
        ("  of significant pairs", "right_if_significant"),
        ("  claimed by z alone", "right_by_z"),
    )
    for title, name in rows:
        print(f" {title:60}{found[name]:.3f}")
    print("\n Phi(|z|)       pairs   mean    really better")
    for row in found["by_confidence"]:
        low, high = row["phi_z"]
        print(f" {low:.2f} to {high:.2f}  {row['pairs']:7,}   {row['phi_z_mean']:.3f}   {row['right']:.3f}")
    print("\n predicted from one half   mean    agreement of the other")
    for row in found["held_out_by_confidence"]:
        low, high = row["predicted"]
        print(f" {low:.2f} to {high:.2f}  {row['pairs']:7,}   {row['predicted_mean']:.3f}   {row['agreement']:.3f}")


if __name__ == "__main__":
    main()
