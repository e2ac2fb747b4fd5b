from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.tracking import Origin, Tracker, label_rows, labels, lineage, trained_on

START = datetime(2030, 1, 1, tzinfo=UTC)


def answer(number: int, annotator: str, round: int, choice: int = 1) -> Answer:
    prompt = Prompt(text=f"prompt {number}")
    samples = tuple(
        Sample(prompt_id=prompt.id, text=f"{side} {number}", policy=f"p{round - 1}", round=round)
        for side in ("left", "right")
    )
    question = Question(prompt=prompt, samples=samples, reason=f"uncertain in round {round}")
    feedback = question.compare(
        [choice, 0], annotator=annotator, source="simulated", created_at=START + timedelta(hours=number)
    )
    return Answer(question=question, feedback=feedback)


ROUND_1 = [answer(1, "ann", 1), answer(1, "bob", 1, -1), answer(2, "ann", 1)]
ROUND_2 = [answer(3, "bob", 2, 0)]


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    with FeedbackStore(f"sqlite:///{tmp_path / 'feedback.db'}") as store:
        store.add(ROUND_1)
        store.snapshot(tmp_path / "artifacts" / "snapshot" / "s1")
        store.add(ROUND_2)
        store.snapshot(tmp_path / "artifacts" / "snapshot" / "s2")
    return tmp_path / "artifacts"


@pytest.fixture
def campaign(fresh: Callable[[], Tracker], tmp_path: Path) -> Tracker:
    """Warm start, round 1 promoted, round 2 made from round 1 and refused, and another campaign in between."""
    tracker = fresh()
    policy, reward = f"{tracker.experiment}-policy", f"{tracker.experiment}-reward"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("w")
    run = tracker.campaign("mine", "campaign")
    log = tracker.models.log_policy
    log(run, folder, policy, Origin(digest="p0", round=0, campaign="mine"))
    log(run, folder, policy, Origin(digest="p0", round=0, campaign="other"))
    for round in (1, 2):
        snapshot = {"snapshot": f"s{round}", "snapshot_uri": f"snapshot/s{round}", "round": round, "campaign": "mine"}
        log(run, folder, reward, Origin(digest=f"r{round}", **snapshot), kind="reward_model")
        whence = Origin(digest=f"p{round}", parent_policy=f"p{round - 1}", reward=f"r{round}", **snapshot)
        version = log(run, folder, policy, whence)
        tracker.models.record_gate(version, round == 1, [f"reason {round}"])
        if round == 1:
            tracker.models.set_alias(policy, "champion", version.version)
    return tracker


def test_the_chain_goes_back_to_the_warm_start(campaign: Tracker) -> None:
    name = f"{campaign.experiment}-policy"
    chain = lineage(campaign, name, 4)
    assert [(link.policy.origin.digest, link.policy.origin.campaign) for link in chain.links] == [
        ("p2", "mine"), ("p1", "mine"), ("p0", "mine"),
    ]  # fmt: skip
    assert [link.reward and link.reward.origin.digest for link in chain.links] == ["r2", "r1", None]
    assert chain.snapshots == (("s2", "snapshot/s2"), ("s1", "snapshot/s1"))
    assert chain.missing == ""
    told = json.loads(json.dumps(chain.to_json()))
    assert told["links"][0]["policy"]["gate"] == {"promote": False, "reasons": ["reason 2"]}
    assert told["links"][1]["policy"]["aliases"] == ["champion"]
    assert len(lineage(campaign, name).links) == 2


def test_a_broken_chain_says_what_is_missing(campaign: Tracker) -> None:
    name = f"{campaign.experiment}-policy"
    campaign.client.delete_model_version(name, "3")
    chain = lineage(campaign, name, 4)
    assert len(chain.links) == 1 and chain.missing == "p1"


def test_an_unknown_version_is_an_error_with_the_known_ones(campaign: Tracker) -> None:
    with pytest.raises(RlhfError, match=r"`9`.*versions: 1, 2, 3, 4"):
        lineage(campaign, f"{campaign.experiment}-policy", "9")
    with pytest.raises(RlhfError, match="versions: none"):
        lineage(campaign, "nothing-policy")


def test_a_reward_models_lineage_is_its_feedback(campaign: Tracker) -> None:
    chain = lineage(campaign, f"{campaign.experiment}-reward", 2)
    assert len(chain.links) == 1 and chain.snapshots == (("s2", "snapshot/s2"),)


def test_labels_are_counted_and_listed(artifacts: Path) -> None:
    summary = labels(artifacts / "snapshot/s2")
    assert summary.total == 4
    assert summary.by_annotator == {"ann": 2, "bob": 2}
    assert summary.by_source == {"simulated": 4}
    assert summary.by_kind == {"comparison": 4}
    assert summary.by_round == {"1": 3, "2": 1}
    assert summary.by_reason == {"uncertain in round 1": 3, "uncertain in round 2": 1}
    assert summary.first == "2030-01-01T01:00:00.000000+00:00" and summary.last == "2030-01-01T03:00:00.000000+00:00"
    rows = {row["feedback"]: row for row in label_rows(artifacts / "snapshot/s2")}
    first = ROUND_1[0]
    row = rows[first.feedback.id]
    assert row["prompt"] == "prompt 1" and row["annotator"] == "ann" and row["round"] == 1
    assert row["said"].startswith(first.question.samples[0].id[:8] + " better than")
    assert [sample["text"] for sample in row["samples"]] == ["left 1", "right 1"]
    assert rows[ROUND_2[0].feedback.id]["said"] == "tie"


def test_a_snapshot_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RlhfError, match="is gone"):
        labels(tmp_path / "nowhere")


def test_a_label_leads_to_the_models_it_shaped(campaign: Tracker, artifacts: Path) -> None:
    policy, reward = f"{campaign.experiment}-policy", f"{campaign.experiment}-reward"

    def shaped(label: Answer) -> list[tuple[str, bool]]:
        found = trained_on(campaign, label.feedback.id, [reward, policy], artifacts)
        return [(one.version.origin.digest, one.direct) for one in found]

    assert shaped(ROUND_2[0]) == [("r2", True), ("p2", True)]
    assert shaped(ROUND_1[0]) == [("r1", True), ("r2", True), ("p1", True), ("p2", True)]
    assert shaped(answer(9, "ann", 1)) == []


def test_a_label_shapes_descendants_too(campaign: Tracker, artifacts: Path) -> None:
    folder = artifacts.parent / "snapshot-less"
    policy = f"{campaign.experiment}-policy"
    folder.mkdir()
    (folder / "weights").write_text("w")
    child = Origin(digest="p3", round=3, campaign="mine", parent_policy="p2", snapshot="s1", snapshot_uri="snapshot/s1")
    campaign.models.log_policy(campaign.campaign("mine", "campaign"), folder, policy, child)
    found = trained_on(campaign, ROUND_2[0].feedback.id, [policy], artifacts)
    assert [(one.version.origin.digest, one.direct) for one in found] == [("p2", True), ("p3", False)]
