"""What happened, in words and numbers that a stranger can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_core.metrics import Metric
from rlhf_core.report.data import RoundData

PREFERRED = "preferred_vs_warm_start"
WIN_START = "win_rate_vs_warm_start"
WIN_CHAMPION = "win_rate_vs_champion"
GOLD = "gold_score"
PROXY = "proxy_score"
KL = "kl"
ACCURACY = "reward_accuracy"
ECE = "reward_ece"


@dataclass(frozen=True)
class Known:
    """How a metric that every campaign has is called and written."""

    title: str
    form: Literal["percent", "number", "nats", "plain"] = "number"


KNOWN = {
    PREFERRED: Known("preferred to warm start", "percent"),
    WIN_START: Known("win rate vs warm start", "percent"),
    WIN_CHAMPION: Known("win rate vs champion", "percent"),
    GOLD: Known("gold score"),
    PROXY: Known("proxy score"),
    KL: Known("KL to the warm start", "nats"),
    ACCURACY: Known("reward model accuracy", "percent"),
    ECE: Known("reward model ECE", "plain"),
    "gold_score_warm_start": Known("gold score of the warm start"),
    "reward_gold_agreement": Known("reward model agrees with gold", "percent"),
    "krippendorff_alpha": Known("Krippendorff's alpha", "number"),
    "annotator_agreement": Known("annotators agree", "percent"),
    "eos_rate": Known("answers that end by themselves", "percent"),
}


def title_of(name: str) -> str:
    """A metric's name for people."""
    return KNOWN[name].title if name in KNOWN else name.replace("_", " ")


def value_of(name: str, metric: Metric | None, interval: bool = True) -> str:
    """A metric's value, with its interval, in the unit it is read in."""
    if metric is None or not math.isfinite(metric.value):
        return "—"
    form = KNOWN[name].form if name in KNOWN else "plain"
    text = _written(form, metric.value)
    if not interval or metric.low is None or metric.high is None:
        return f"{text} %" if form == "percent" else f"{text} nats" if form == "nats" else text
    ends = f"[{_written(form, metric.low)}, {_written(form, metric.high)}]"
    unit = {"percent": " %", "nats": " nats"}.get(form, "")
    return f"{text}{unit} {ends}"


def round_headline(data: RoundData) -> str:
    """One or two sentences about a round."""
    if data.round == 0:
        return "The warm start: the policy before any feedback, and the first champion."
    who = "The challenger was promoted" if data.promoted else "The challenger was not promoted"
    if data.decision is None:
        who = "The challenger has not been judged"
    found = [_preferred(data, WIN_CHAMPION, "the champion before it"), _preferred_to_start(data)]
    said = " and to ".join(part for part in found if part)
    return f"{who}. It is preferred to {said}." if said else f"{who}."


def campaign_headline(rounds: Sequence[RoundData]) -> str:
    """Two sentences about a campaign: where the champion stands, how it came there."""
    judged = [one for one in rounds if one.decision is not None]
    promoted = [one for one in judged if one.promoted]
    if not judged:
        return "Only the warm start so far: no round has been judged yet."
    tried = f"{len(judged)} round" + ("s" if len(judged) > 1 else "")
    if not promoted:
        return f"No challenger was promoted in {tried}: the warm start is still the champion."
    champion = promoted[-1]
    preferred = _preferred_to_start(champion)
    kl = champion.metrics.get(KL)
    at = f", at a KL of {value_of(KL, kl, interval=False)}" if kl is not None else ""
    stands = f"is preferred to {preferred}{at}" if preferred else f"replaced the warm start{at}"
    against = champion.metrics.get(WIN_START)
    if against is not None and against.low is not None and against.low <= 0.5:
        stands += "; that is not clearly better than a coin"
    times = "once" if len(promoted) == 1 else "twice" if len(promoted) == 2 else f"{len(promoted)} times"
    return f"The champion, from round {champion.round}, {stands}. A challenger was promoted {times} in {tried}."


def _preferred_to_start(data: RoundData) -> str:
    """By the share of prompts whose answers got better where that was measured, else by single answers."""
    return _preferred(data, PREFERRED if PREFERRED in data.metrics else WIN_START, "the warm start")


def _preferred(data: RoundData, name: str, than: str) -> str:
    """`the warm start on 93 % [90, 96] of 200 held-out prompts`; empty where it was not measured."""
    metric = data.metrics.get(name)
    if metric is None or not math.isfinite(metric.value):
        return ""
    prompts = f"{metric.n} held-out prompts" if metric.n else "held-out prompts"
    value = value_of(name, metric)
    return f"{than} on {value} of {prompts}" if name == PREFERRED else f"{than} in {value} of comparisons on {prompts}"


def _written(form: str, value: float) -> str:
    if form == "percent":
        return f"{100 * value:.0f}"
    if form in ("number", "nats"):
        text = f"{value:.2f}" if form == "number" else f"{value:.1f}"
        return text.replace("-", "−")
    return f"{value:.3g}".replace("-", "−")
