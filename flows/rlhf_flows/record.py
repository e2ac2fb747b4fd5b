"""What a campaign leaves behind: MLflow runs, registry versions, reports, and a summary for `rlhf compare`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import Waiting
from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_core.tracking.registry import CHALLENGER, CHAMPION, Origin
from rlhf_core.tracking.run import Status, TrackedRun
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.artifacts import Ref
from rlhf_flows.promotions import promotions
from rlhf_flows.stage import Stage, StageResult
from rlhf_flows.workspace import Workspace, write_atomically


class RoundSummary(BaseModel):
    """One round in the end: what `rlhf compare` prints and what the next command starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    promoted: bool
    reasons: tuple[str, ...] = ()
    metrics: dict[str, Metric] = {}
    policy: Ref
    parent: Ref | None = None
    """The policy that this one was optimised from."""
    reward: Ref | None = None
    snapshot: Ref | None = None
    evaluations: tuple[Ref, ...] = ()


class CampaignSummary(BaseModel):
    """A campaign so far, kept in the workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    campaign: str
    seed: int
    rounds: tuple[RoundSummary, ...] = ()


def campaign_key(pipeline: Pipeline) -> str:
    """Identity of a campaign: the pipeline without its number of rounds and its patch sets, so that more of them
    continue it.
    """
    return content_id(pipeline.model_dump(mode="json", exclude={"rounds", "patches"}))


def summary_path(workspace: Workspace, pipeline: Pipeline) -> Path:
    """Where the summary of the pipeline's campaign lies."""
    return workspace.campaigns / f"{pipeline.pipeline}-{campaign_key(pipeline)}.json"


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> its points, by step, in a file that `StageRecord.log` wrote.

    Of a step that was done twice, before and after a kill, the later one counts.
    """
    if not path.exists():
        return {}
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # half a line, left by a kill
        step = row.pop("step")
        for name, value in row.items():
            points[name][step] = value
    return {name: sorted(by_step.items()) for name, by_step in points.items()}


class StageRecord:
    """One stage in MLflow, with its curves also in a file for the report."""

    def __init__(self, run: TrackedRun, curve: Path, stage: Stage) -> None:
        self.run = run
        self.curve = curve
        self.stage = stage

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record one training step."""
        self.run.log_metrics(metrics, step)
        self.curve.parent.mkdir(exist_ok=True)
        with self.curve.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def finish(self, result: StageResult, **tags: str) -> None:
        """The stage is done."""
        last = self._last()
        self.run.log_metric_objects(result.metrics, last)
        self.run.log_metrics({"seconds": result.seconds}, last)
        self.run.set_tags(
            {"rlhf.artifact": result.ref.uri, "rlhf.summary": str(result.info.get("summary", "")), **tags}
        )
        self.run.finish()

    def finish_cached(self, result: StageResult) -> None:
        """The stage was done before; a campaign that shares it gets a run that says so."""
        if not self.run.resumed:
            self.finish(result, **{"rlhf.cached": "true"})
        else:
            self.run.finish()

    def attempt(self, name: str, settings: Mapping[str, object]) -> StageRecord:
        """The record of one of several attempts in this stage, below it."""
        tags = {"rlhf.level": "attempt", "rlhf.stage": self.stage.name, "rlhf.round": str(self.stage.round)}
        run = self.run.child(f"{self.run.key}/{name}", name, tags)
        run.log_params(settings)
        return StageRecord(run, self.curve.with_name(f"{self.curve.stem}-{name}.jsonl"), self.stage)

    def ended(self, metrics: Mapping[str, Metric], error: BaseException | None) -> None:
        """An attempt is over."""
        if error is not None:
            self.failed(error)
            return
        self.run.log_metric_objects(metrics, self._last())
        self.run.finish()

    def _last(self) -> int:
        """The step that results belong to: the one after the curves, so that they end in what came of them."""
        steps = [points[-1][0] for points in read_curves(self.curve).values()]
        return max(steps) + 1 if steps else self.stage.round

    def failed(self, error: BaseException) -> None:
        """The stage ended with an error, or was stopped."""
        self.run.set_tags({"rlhf.error": f"{type(error).__name__}: {error}"})
        self.run.finish(_status(error))


class CampaignRecord:
    """Everything that one campaign writes down beside its artifacts."""

    def __init__(
        self, pipeline: Pipeline, registry: Registry, workspace: Workspace, tracker: Tracker, *, purpose: str = ""
    ) -> None:
        """`purpose` is a word for work on the pipeline that is no campaign of it and has an MLflow run of its own."""
        self.pipeline = pipeline
        self.registry = registry
        self.workspace = workspace
        self.tracker = tracker
        self.key = f"{purpose}-{campaign_key(pipeline)}" if purpose else campaign_key(pipeline)
        self.purpose = purpose
        self.policy_name = f"{pipeline.pipeline}-policy"
        self.reward_name = f"{pipeline.pipeline}-reward"
        self.curves: dict[tuple[int, str], Path] = {}
        """Where the metrics by step of each round's stages lie."""
        self._rounds: dict[int, TrackedRun] = {}

    @cached_property
    def run(self) -> TrackedRun:
        """The campaign's MLflow run."""
        pipeline = self.pipeline
        params = _flat(pipeline.model_dump(mode="json"))
        run = self.tracker.campaign(
            self.key,
            f"{self.purpose} {pipeline.pipeline} seed {pipeline.seed}".strip(),
            params,
            {"rlhf.pipeline": pipeline.pipeline},
        )
        run.set_tags({"rlhf.plugins": json.dumps(self.plugins())})
        return run

    def plugins(self) -> dict[str, str]:
        """Plugin -> distribution and version, for everything that the pipeline uses."""
        pipeline = self.pipeline
        slots: list[tuple[str, Use | None]] = [
            *(("data_sources", use) for use in pipeline.data),
            ("policies", pipeline.policy),
            ("warm_starts", pipeline.warm_start),
            ("reward_models", pipeline.reward),
            ("reward_models", pipeline.gold),
            ("optimizers", pipeline.optimize),
            *(("evaluators", use) for use in pipeline.evaluate),
            ("gates", pipeline.gate),
        ]
        if pipeline.ask is not None:
            slots += [("selectors", pipeline.ask.selector), *(("annotators", use) for use in pipeline.ask.annotators)]
        found = {}
        for kind, use in slots:
            if use is not None:
                info = self.registry.find(kind, use.use)
                found[f"{kind}/{info.name}"] = f"{info.distribution} {info.version}"
        return found

    def round_run(self, round_: int) -> TrackedRun:
        """The MLflow run of one round."""
        if round_ not in self._rounds:
            name = f"round {round_}" if round_ else "start"
            tags = {"rlhf.level": "round", "rlhf.round": str(round_)}
            self._rounds[round_] = self.run.child(f"{self.key}/round-{round_}", name, tags)
        return self._rounds[round_]

    def stage(self, stage: Stage, key: str) -> StageRecord:
        """The record of one stage, below its round."""
        tags = {"rlhf.level": "stage", "rlhf.stage": stage.name, "rlhf.round": str(stage.round)}
        run = self.round_run(stage.round).child(f"{self.key}/{key}", f"{stage.name} (round {stage.round})", tags)
        curve = self.curves[stage.round, stage.name] = self.workspace.folder / "curves" / f"{key}.jsonl"
        return StageRecord(run, curve, stage)

    @property
    def summary_path(self) -> Path:
        """The campaign's summary in the workspace."""
        return summary_path(self.workspace, self.pipeline)

    def round_finished(self, summaries: list[RoundSummary], snapshot: StageResult | None) -> None:
        """Write the last of `summaries` to MLflow, to the registry, and to the workspace. Repeating changes nothing."""
        summary = summaries[-1]
        run = self.round_run(summary.round)
        if snapshot is not None:
            rows = int(str(snapshot.info["rows"]))
            folder = self.workspace.artifacts / snapshot.ref.uri
            run.log_dataset(snapshot.ref.sha256[:32], f"{self.pipeline.pipeline}-feedback", rows, str(folder))
        run.log_metric_objects(summary.metrics, summary.round)
        run.set_tags({"rlhf.promoted": str(summary.promoted).lower(), "rlhf.gate": "; ".join(summary.reasons)})
        run.describe(_round_words(summary))
        self.run.log_metric_objects(
            {**summary.metrics, "promoted": Metric(value=float(summary.promoted))}, summary.round
        )
        self._register(summary, run)
        rounds = (*summaries, *self._later_than(summaries))
        campaign = CampaignSummary(
            pipeline=self.pipeline.pipeline, campaign=self.key, seed=self.pipeline.seed, rounds=rounds
        )
        write_atomically(self.summary_path, campaign.model_dump_json(indent=1))
        run.finish()

    def _later_than(self, summaries: Sequence[RoundSummary]) -> tuple[RoundSummary, ...]:
        """The rounds that earlier commands finished after these, where these came out as they did then: every command
        replays the campaign, and a kill meanwhile must not make it shorter.
        """
        if not self.summary_path.exists():
            return ()
        before = CampaignSummary.model_validate_json(self.summary_path.read_text()).rounds
        same = [round.policy for round in before[: len(summaries)]] == [round.policy for round in summaries]
        return before[len(summaries) :] if same else ()

    def _register(self, summary: RoundSummary, run: TrackedRun) -> None:
        origin = Origin(
            digest=summary.policy.sha256,
            round=summary.round,
            campaign=self.key,
            seed=self.pipeline.seed,
            parent_policy=summary.parent.sha256 if summary.parent else "",
            reward=summary.reward.sha256 if summary.reward else "",
            snapshot=summary.snapshot.sha256 if summary.snapshot else "",
            snapshot_uri=summary.snapshot.uri if summary.snapshot else "",
        )
        artifacts, models = self.workspace.artifacts, self.tracker.models
        if summary.reward is not None:
            reward = Origin(
                digest=summary.reward.sha256,
                round=summary.round,
                campaign=self.key,
                seed=self.pipeline.seed,
                snapshot=origin.snapshot,
                snapshot_uri=origin.snapshot_uri,
            )
            health = {name: metric for name, metric in summary.metrics.items() if name.startswith("reward_")}
            models.log_policy(
                run, artifacts / summary.reward.uri / "reward", self.reward_name, reward, health, kind="reward_model"
            )
        version = models.log_policy(
            run, artifacts / summary.policy.uri / "policy", self.policy_name, origin, summary.metrics
        )
        models.record_gate(version, summary.promoted, summary.reasons)
        models.set_alias(self.policy_name, CHALLENGER, version.version)
        if summary.promoted:
            models.set_alias(self.policy_name, CHAMPION, version.version)
            self.run.link_model(version, summary.round)
        for chosen in promotions(self.workspace, self.pipeline.pipeline, self.key):
            if chosen.after == summary.round:
                models.set_alias(self.policy_name, CHAMPION, chosen.version)

    def finish(self) -> None:
        """The campaign is complete."""
        self.run.finish()

    def stopped(self, error: BaseException) -> None:
        """The campaign ended early."""
        for run in self._rounds.values():
            run.finish(_status(error))
        self.run.finish(_status(error))


def _status(error: BaseException) -> Status:
    """What MLflow says of work that ended early; a campaign that waits for people is scheduled to go on."""
    if isinstance(error, Waiting):
        return "SCHEDULED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _round_words(summary: RoundSummary) -> str:
    verdict = "promoted" if summary.promoted else "kept the champion"
    reasons = [f"- {reason}" for reason in summary.reasons]
    figures = [f"- {name}: {metric}" for name, metric in summary.metrics.items()]
    return "\n".join([f"**Round {summary.round}: {verdict}.**", *reasons, "", "Figures:", *figures])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b.0.c` -> value, as MLflow shows them."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in parts:
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
