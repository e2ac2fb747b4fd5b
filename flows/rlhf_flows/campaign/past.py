"""What earlier commands finished of a campaign, as far as it still holds, and what this one adds to it."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_core.feedback.changes import Position
from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.feedback.store import FeedbackStore
from rlhf_flows.artifact_store import ArtifactStore, Ref
from rlhf_flows.campaign.ledger import Ledger, RoundSummary
from rlhf_flows.campaign.looking import look
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.graph import Node


class Past:
    """The finished rounds of a campaign, in its ledger."""

    def __init__(self, ledger: Ledger, artifacts: ArtifactStore, store_url: str, note: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.artifacts = artifacts
        self.store_url = store_url
        self.note = note
        self.lost: set[Ref] = set()
        """Damaged artifacts that were thrown away: what they are results of has to be computed again."""
        self._since = Position(0, 0)
        self._untouched = False

    def compare(self) -> None:
        """Find out whether the feedback store still says what it said when the rounds were finished."""
        index = self.ledger.index()
        if index.rebuilt:
            self.note(f"the index of this campaign's rounds could not be read: {index.rounds} are looked at again")
        with FeedbackStore.open(self.store_url) as store:
            self._since = store.position()
            self._untouched = index.verified_upto is not None and not store.changed_since(
                Position(*index.verified_upto), upto=index.learnt_upto
            )

    def take_over(self, campaign: Campaign) -> bool:
        """Let the campaign go on behind the finished rounds that hold, from its coming one on; whether there were any.

        Where answers were revised or withdrawn since, the snapshot of each round is compared with what the store holds
        now. Nothing is run.
        """
        coming, index = campaign.coming, self.ledger.index()

        def found_now(node: Node) -> Ref | None:
            found = look(node, campaign.memory, self.artifacts, self.store_url)
            return found.ref if found is not None else None

        campaign.recall(self.ledger, None if self._untouched else found_now, self.lost)
        if not self._untouched and coming < campaign.coming == index.rounds:
            learnt_upto = self._watermark(campaign.rounds[-1], index.learnt_upto)
            self.ledger.verified(tuple(self._since), learnt_upto)
        return campaign.coming > coming

    def remember(self, done: RoundSummary) -> None:
        """Write a finished round down. A kill must not make a campaign shorter: later rounds stay where this one came
        out as it did before.
        """
        before, index = self.ledger.round(done.round), self.ledger.index()
        same = before is None or before.policy == done.policy  # unreadable: the later ones are compared, too
        rounds = max(index.rounds, done.round + 1) if same else done.round + 1
        last = rounds == done.round + 1
        learnt = self._watermark(done, index.learnt_upto) if last else index.learnt_upto
        self.ledger.finish(done, learnt_upto=learnt, rounds=rounds, verified_upto=tuple(self._since) if last else None)

    def _watermark(self, done: RoundSummary, before: int) -> int:
        """The store's watermark when the round took its snapshot; as `before` where it took none."""
        snapshot = done.result(f"{done.round}/snapshot") if done.round else None
        return Snapshot.read(self.artifacts.path(snapshot.ref)).watermark if snapshot is not None else before
