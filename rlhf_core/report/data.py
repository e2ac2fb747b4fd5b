"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_core.metrics import Metric
from rlhf_core.plugins.gate import Decision

Curve = Sequence[tuple[int, float]]
"""A metric during training: (step, value)."""
Row = Mapping[str, Any]
"""A row of a table as plain JSON."""


@dataclass(frozen=True)
class About:
    """What the whole report is about."""

    pipeline: str
    seed: int
    campaign: str = ""
    """The campaign's key."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """What was used where: `optimizers: ppo` -> `rlhf-pipeline 0.1.0`."""
    mlflow: str = ""
    """The campaign's page in MLflow, `#/experiments/.../runs/...`."""


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions of about equal confidence: how often they were right."""

    low: float
    high: float
    confidence: float
    """Mean predicted probability in the bin."""
    accuracy: float
    """Share of them that was right."""
    n: int


@dataclass(frozen=True)
class SampleRow:
    """One held-out prompt with the answers of several policies to it."""

    prompt: str
    before: str
    """The warm start's answer."""
    after: str
    """The challenger's answer; in a campaign's report the final champion's."""
    champion: str | None = None
    """The answer of the champion at that time; None where there was no other than the warm start."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Judge -> {`before` | `champion` | `after`: score}."""

    @classmethod
    def of(cls, row: Row, judge: str = "score") -> SampleRow:
        """From a row of the win-rate evaluator's table `samples`: texts, and scores in `before_score` and so on."""
        scores = {who: row[f"{who}_score"] for who in ("before", "champion", "after") if f"{who}_score" in row}
        # Before the first round the warm start is evaluated as its own challenger.
        before = row.get("before", row["after"])
        return cls(row["prompt"], before, row["after"], row.get("champion"), {judge: scores} if scores else {})


@dataclass(frozen=True)
class FeedbackSummary:
    """The feedback a round learnt from."""

    questions: int = 0
    answers: int = 0
    annotators: Mapping[str, int] = field(default_factory=dict)
    """Number of answers by annotator."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Number of questions by why they were asked."""
    agreement: Metric | None = None
    """Krippendorff's alpha."""
    skipped: int = 0


@dataclass(frozen=True)
class RoundData:
    """One round; round 0 is the warm start."""

    round: int
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    decision: Decision | None = None
    """The gate's verdict; None for the warm start."""
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    """Stage -> metric -> curve."""
    calibration: Sequence[CalibrationBin] = ()
    samples: Sequence[SampleRow] = ()
    feedback: FeedbackSummary | None = None
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Further tables by name, as the evaluators gave them."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    mlflow: str = ""
    """The round's page in MLflow, `#/experiments/.../runs/...`."""
    graph: str = ""
    """The stages that made it, drawn as text."""
    snapshot: str = ""
    """Digest of the feedback."""
    policy: str = ""
    """Digest of the challenger."""

    @property
    def promoted(self) -> bool:
        """Whether the round's policy became champion; the warm start is one by definition."""
        return self.decision.promote if self.decision is not None else self.round == 0
