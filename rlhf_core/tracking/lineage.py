"""From a model to the labels behind it, and from a label to the models it shaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer, AnyFeedback, Comparison, Demonstration, Ranking, Rating, Reaction, Skip
from rlhf_core.tracking.registry import ModelVersion
from rlhf_core.tracking.tracker import Tracker


@dataclass(frozen=True)
class Link:
    """A policy in the chain, with what made it: the reward model, the feedback, the gate's verdict."""

    policy: ModelVersion
    reward: ModelVersion | None
    """The reward model it was optimised on; None for a warm start, or where the registry no longer holds it."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"policy": _version_json(self.policy), "reward": self.reward and _version_json(self.reward)}


@dataclass(frozen=True)
class Lineage:
    """The chain of policies from the one asked for back to the warm start, newest first."""

    links: tuple[Link, ...]
    missing: str = ""
    """Digest of the parent at which the chain breaks because the registry does not hold it; empty where it is whole."""

    @property
    def snapshots(self) -> tuple[tuple[str, str], ...]:
        """Digest and folder of each snapshot of feedback in the chain, newest first, each once."""
        origins = [link.policy.origin for link in self.links]
        return tuple(dict.fromkeys((origin.snapshot, origin.snapshot_uri) for origin in origins if origin.snapshot))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"links": [link.to_json() for link in self.links], "missing": self.missing}


@dataclass(frozen=True)
class LabelSummary:
    """How many labels of which sort a snapshot holds."""

    total: int
    by_annotator: dict[str, int]
    by_source: dict[str, int]
    by_kind: dict[str, int]
    by_round: dict[str, int]
    by_reason: dict[str, int]
    """By why the question was selected."""
    first: str
    """When the first was given, ISO 8601; empty where there is none."""
    last: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A model version that a label shaped."""

    version: ModelVersion
    direct: bool
    """True where its own snapshot holds the label; False where a policy it descends from was trained on it."""


def lineage(tracker: Tracker, name: str, which: str | int = "champion") -> Lineage:
    """The chain of the version `which` (number or alias) of the registered model `name`.

    Raises RlhfError where there is no such version.
    """
    start = tracker.models.get(name, which)
    if start is None:
        numbers = ", ".join(str(version.version) for version in tracker.models.versions(name)) or "none"
        raise RlhfError(
            f"there is no version `{which}` of the model `{name}` (versions: {numbers}).",
            where=tracker.uri,
            remedy="`rlhf compare` lists the rounds of a campaign; a model is registered when its round ends.",
        )
    policies = tracker.models.versions(name)
    rewards = tracker.models.versions(reward_name(name)) if reward_name(name) != name else []
    links: list[Link] = []
    current: ModelVersion | None = start
    missing = ""
    while current is not None:
        at = current.origin
        links.append(Link(current, _ancestor(rewards, at.reward, at.campaign, before=at.round + 1)))
        parent = at.parent_policy
        current = _ancestor(policies, parent, at.campaign, before=at.round)
        missing = parent if current is None else ""
    return Lineage(tuple(links), missing)


def reward_name(policy_name: str) -> str:
    """Name of the reward model that belongs to a policy's name: `{pipeline}-policy` to `{pipeline}-reward`."""
    return f"{policy_name.removesuffix('-policy')}-reward" if policy_name.endswith("-policy") else policy_name


def labels(folder: Path) -> LabelSummary:
    """Who answered what, when and why in the snapshot in `folder`."""
    annotators: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    rounds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    first = last = ""
    for answer in _open(folder).answers():
        feedback = answer.feedback
        annotators[feedback.annotator] += 1
        sources[feedback.source] += 1
        kinds[feedback.kind] += 1
        rounds[str(_round(answer))] += 1
        reasons[answer.question.reason] += 1
        if when := feedback.given_at:
            first, last = min(first or when, when), max(last, when)
    return LabelSummary(
        total=sum(kinds.values()),
        by_annotator=_sorted(annotators),
        by_source=_sorted(sources),
        by_kind=_sorted(kinds),
        by_round=_sorted(rounds),
        by_reason=_sorted(reasons),
        first=first,
        last=last,
    )


def label_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every label of the snapshot in `folder`: who, when, on which samples, why asked, what was said."""
    for answer in _open(folder).answers():
        feedback, question = answer.feedback, answer.question
        yield {
            "feedback": feedback.id,
            "annotator": feedback.annotator,
            "source": feedback.source,
            "kind": feedback.kind,
            "when": feedback.given_at,
            "round": _round(answer),
            "asked_because": question.reason,
            "prompt": question.prompt.content,
            "samples": [{"id": s.id, "policy": s.policy, "text": s.text} for s in question.samples],
            "said": said(feedback),
            "reasons": dict(feedback.reasons),
            "comment": feedback.comment,
        }


def trained_on(tracker: Tracker, feedback_id: str, names: Sequence[str], artifacts: Path) -> list[Trained]:
    """The versions of the models `names` that the label shaped, oldest first within each name.

    Relative addresses of snapshots are looked up below `artifacts`. A snapshot that is gone counts as not holding it.
    """
    holds: dict[str, bool] = {}
    shaped: list[Trained] = []
    for name in names:
        digests: set[str] = set()
        for version in tracker.models.versions(name):
            origin = version.origin
            if origin.snapshot and origin.snapshot not in holds:
                holds[origin.snapshot] = _holds(artifacts / origin.snapshot_uri, feedback_id)
            direct = holds.get(origin.snapshot, False)
            if direct or origin.parent_policy in digests:
                shaped.append(Trained(version, direct))
                digests.add(origin.digest)
    return shaped


def said(feedback: AnyFeedback) -> str:
    """The answer in a few words."""
    match feedback:
        case Comparison(choice="tie"):
            return "tie, both bad" if feedback.both_bad else "tie"
        case Comparison():
            better, worse = (feedback.first, feedback.second)
            if feedback.choice == "second":
                better, worse = worse, better
            return f"{better[:8]} better than {worse[:8]} (strength {feedback.strength:g})"
        case Ranking():
            pairs = sorted(zip(feedback.ranks, feedback.samples, strict=True))
            return ", ".join(f"{rank}. {sample[:8]}" for rank, sample in pairs)
        case Rating():
            return f"{feedback.criterion} {feedback.score:g} of {feedback.low:g} to {feedback.high:g}"
        case Reaction():
            return f"{feedback.count} {feedback.action} of {feedback.exposures}"
        case Demonstration():
            return feedback.text or f"{len(feedback.trajectory.actions) if feedback.trajectory else 0} steps"
        case Skip():
            return f"skipped: {feedback.reason}" if feedback.reason else "skipped"


def _ancestor(versions: Sequence[ModelVersion], digest: str, campaign: str, before: int) -> ModelVersion | None:
    """The latest version with this digest from a round before `before`, of this campaign if there is one."""
    if not digest:
        return None
    found = [version for version in versions if version.origin.digest == digest and version.origin.round < before]
    found.sort(key=lambda version: version.origin.campaign == campaign)
    return found[-1] if found else None


def _open(folder: Path) -> FeedbackSet:
    if not folder.is_dir():
        raise RlhfError("the snapshot of the feedback is gone.", where=str(folder), remedy="Bring the folder back.")
    return FeedbackSet.open(folder)


def _holds(folder: Path, feedback_id: str) -> bool:
    return folder.is_dir() and any(answer.feedback.id == feedback_id for answer in FeedbackSet.open(folder).answers())


def _round(answer: Answer) -> int:
    return max((sample.round for sample in answer.question.samples), default=0)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _version_json(version: ModelVersion) -> dict[str, Any]:
    origin = {name: value for name, value in asdict(version.origin).items() if value != ""}
    described = {"name": version.name, "version": version.version, "aliases": list(version.aliases)}
    return {**described, "run": version.run_id, "gate": version.gate, **origin}
