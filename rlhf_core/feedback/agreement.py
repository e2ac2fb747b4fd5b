"""How far annotators agree: shares, Krippendorff's alpha, Cohen's kappa. Pure functions on plain labels.

`units` holds the labels that each unit got, one an annotator; missing answers are simply absent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from math import fsum
from typing import Any, Literal

Level = Literal["nominal", "ordinal", "interval"]
"""What differences between labels mean: nothing but that they differ, their order, or their size."""
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")


def pairwise_agreement(units: Iterable[Sequence[Hashable]]) -> float | None:
    """The share of equal labels among all pairs of annotators who labelled the same unit; None where none did."""
    equal = total = 0
    for labels in units:
        n = len(labels)
        total += n * (n - 1) // 2
        equal += sum(count * (count - 1) // 2 for count in Counter(labels).values())
    return equal / total if total else None


def krippendorff_alpha(units: Iterable[Sequence[Any]], level: Level = "nominal") -> float | None:
    """Krippendorff's alpha: 1 is perfect agreement, 0 is what chance gives, below 0 is worse.

    alpha = 1 - (n - 1) sum_{c<k} o_ck d_ck / sum_{c<k} n_c n_k d_ck, where o_ck counts how often c and k stand at one
    unit (each unit of m labels weighs 1 / (m - 1)), n_c is the number of labels c, and d_ck is 1 (nominal),
    (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2 (ordinal), or (c - k)^2 (interval): Krippendorff, "Computing Krippendorff's
    Alpha-Reliability" (2011), section C. None where no unit has two labels, or where only one label was ever used
    (chance agreement is then perfect). Ordinal labels must be sortable, interval labels numbers.
    """
    observed: Counter[tuple[Any, Any]] = Counter()
    totals: Counter[Any] = Counter()
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        totals.update(counts)
        for a, b in combinations(counts, 2):
            for pair in ((a, b), (b, a)):
                observed[pair] += counts[a] * counts[b] / (len(labels) - 1)  # type: ignore[assignment]
    values = sorted(totals) if level != "nominal" else list(totals)
    below = dict(zip(values, _running(totals[value] for value in values), strict=True))

    def difference(c: Any, k: Any) -> float:
        if level == "nominal":
            return 1.0
        if level == "interval":
            return float((c - k) ** 2)
        return float(below[k] + totals[k] - below[c] - (totals[c] + totals[k]) / 2) ** 2

    pairs = [(c, k, difference(c, k)) for c, k in combinations(values, 2)]
    expected = fsum(totals[c] * totals[k] * d for c, k, d in pairs)
    if expected == 0:
        return None
    return 1 - (totals.total() - 1) * fsum(observed[c, k] * d for c, k, d in pairs) / expected


def _running(counts: Iterable[int]) -> list[int]:
    """For each count the sum of those before it."""
    sums, total = [], 0
    for count in counts:
        sums.append(total)
        total += count
    return sums


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two annotators, from the labels that they gave to the same units.

    kappa = (p_o - p_e) / (1 - p_e) with p_o the share of equal labels and p_e what their own frequencies give by chance
    (Cohen 1960). None where there are no pairs, or where both used one label only.
    """
    n = len(pairs)
    if not n:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = fsum(first[label] * second[label] for label in first) / n**2
    if by_chance == 1:
        return None
    return (sum(a == b for a, b in pairs) / n - by_chance) / (1 - by_chance)


def pairwise_kappas(
    units: Iterable[Mapping[str, Hashable]], *, at_least: int = 10
) -> dict[tuple[str, str], tuple[float, int]]:
    """Cohen's kappa and the number of common units of every two annotators with `at_least` of them.

    `units` holds for each unit who gave which label.
    """
    common: dict[tuple[str, str], list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for labels in units:
        for a, b in combinations(sorted(labels), 2):
            common[a, b].append((labels[a], labels[b]))
    found = {}
    for names, pairs in sorted(common.items()):
        kappa = cohen_kappa(pairs) if len(pairs) >= at_least else None
        if kappa is not None:
            found[names] = (kappa, len(pairs))
    return found
