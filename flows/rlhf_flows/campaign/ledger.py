"""What is remembered of a campaign's finished rounds, beside the artifacts: known to every machine that shares them.

A finished round is one document, written once; an index names the rounds. So going on after thirty rounds reads thirty
small documents and replays nothing, as long as the keys of their stages still hold.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.placement import PLACEMENT_FIELDS
from rlhf_core.records import content_id
from rlhf_flows.artifact_store import ArtifactStore, Ref
from rlhf_flows.engine.results import Finished
from rlhf_flows.graph.parts import Asked
from rlhf_flows.stages.context import StageResult

CAMPAIGNS, ROUNDS, MEMORY = "campaigns", "rounds", "memory"


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
    """The feedback that was learnt from."""
    tuning: Ref | None = None
    """The search whose settings the reward model was fitted with."""
    evaluations: tuple[Ref, ...] = ()
    mlflow_run: str = ""
    """Id of the round's MLflow run."""
    asked: Asked | None = None
    """The round's questions; None where nobody was asked."""
    stages: dict[str, Finished] = {}
    """Every stage of the round, by its node's id."""

    def result(self, node: str) -> StageResult | None:
        """The result of a node of this round; None where the round has no such node."""
        done = self.stages.get(node)
        return done.result if done is not None else None

    @property
    def feedback(self) -> StageResult | None:
        """The result of the stage that gave the feedback that was learnt from; None where nothing was."""
        own = (done.result for done in self.stages.values())
        return next((result for result in own if self.snapshot is not None and result.ref == self.snapshot), None)


class CampaignSummary(BaseModel):
    """A campaign so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    campaign: str
    seed: int
    rounds: tuple[RoundSummary, ...] = ()
    at: str = ""
    """When it was last worked on."""


class Index(BaseModel):
    """The document that names a campaign's rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    campaign: str
    seed: int
    rounds: int = 0
    """Finished rounds, the warm start's included."""
    learnt_upto: int = 0
    """The store's watermark when the last round took its snapshot."""
    verified_upto: tuple[int, int] | None = None
    """The store's position when all finished rounds were last known to stand on what the store holds; None where that
    has to be looked at again.
    """
    at: str = ""
    rebuilt: bool = Field(False, exclude=True)
    """Whether the document could not be read, and the rounds' own documents were counted instead."""


def campaign_key(pipeline: Pipeline) -> str:
    """Identity of a campaign: the pipeline without its number of rounds, its patch sets and where it runs, so that
    more of them continue it.
    """
    return content_id(pipeline.model_dump(mode="json", exclude={"rounds", "patches", *PLACEMENT_FIELDS}))


class Ledger:
    """The memory of one campaign."""

    def __init__(self, artifacts: ArtifactStore, pipeline: Pipeline) -> None:
        self.artifacts = artifacts
        self.pipeline = pipeline
        self.campaign = campaign_key(pipeline)
        self._name = f"{pipeline.pipeline}-{self.campaign}"

    def index(self) -> Index:
        """What there is; an empty index for a new campaign."""
        text = self.artifacts.read_text(f"{CAMPAIGNS}/{self._name}.json")
        empty = Index(pipeline=self.pipeline.pipeline, campaign=self.campaign, seed=self.pipeline.seed)
        if text is None:
            return empty
        found = _index(text)
        if found is not None and found.campaign == self.campaign:
            return found
        rounds = next(number for number in count() if self.round(number) is None)
        return empty.model_copy(update={"rounds": rounds, "rebuilt": True})

    def round(self, number: int) -> RoundSummary | None:
        """A finished round; None where it is not, or where its document cannot be read."""
        return _round(self.artifacts, self._name, number)

    def finish(
        self, summary: RoundSummary, *, learnt_upto: int, rounds: int, verified_upto: tuple[int, ...] | None
    ) -> None:
        """Remember a finished round. `rounds` is how many there are now; all of them stand on what the store held at
        `verified_upto`, or have to be looked at again where that is None.
        """
        self.artifacts.write_text(_round_name(self._name, summary.round), summary.model_dump_json())
        self._write_index(rounds=rounds, learnt_upto=learnt_upto, verified_upto=verified_upto)

    def verified(self, upto: tuple[int, ...], learnt_upto: int) -> None:
        """Remember that all finished rounds stand on what the store held at `upto`."""
        self._write_index(verified_upto=upto, learnt_upto=learnt_upto)

    def _write_index(self, **changes: object) -> None:
        now = {**self.index().model_dump(), **changes, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        text = Index.model_validate(now).model_dump_json()
        self.artifacts.write_text(f"{CAMPAIGNS}/{self._name}.json", text)


def campaigns(artifacts: ArtifactStore, pipeline: str | None = None) -> list[CampaignSummary]:
    """All campaigns (of one pipeline) with their rounds, the one that was worked on last first.

    Documents that are none of ours are passed over, and so is a campaign whose index cannot be read: its next run
    writes that anew.
    """
    found = []
    for name in artifacts.names(CAMPAIGNS):
        text = artifacts.read_text(f"{CAMPAIGNS}/{name}")
        index = _index(text) if text is not None else None
        if index is None or pipeline not in (None, index.pipeline):
            continue
        rounds = [_round(artifacts, f"{index.pipeline}-{index.campaign}", number) for number in range(index.rounds)]
        whole = tuple(done for done in rounds if done is not None)
        found.append(
            CampaignSummary(
                pipeline=index.pipeline, campaign=index.campaign, seed=index.seed, rounds=whole, at=index.at
            )
        )
    return sorted(found, key=lambda summary: summary.at, reverse=True)


def _index(text: str) -> Index | None:
    try:
        return Index.model_validate_json(text)
    except ValidationError:
        return None


def _round(artifacts: ArtifactStore, name: str, number: int) -> RoundSummary | None:
    text = artifacts.read_text(_round_name(name, number))
    try:
        return RoundSummary.model_validate_json(text) if text is not None else None
    except ValidationError:
        return None


def _round_name(name: str, number: int) -> str:
    return f"{ROUNDS}/{name}-{number:04}.json"
