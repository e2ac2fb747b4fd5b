"""A campaign that asks actively, looks back over its rounds, keeps patches, and is rolled back by a person."""

import json
from pathlib import Path

import pytest
from test_loop import printed, rlhf

from rlhf_core.tracking.registry import CHAMPION
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.promotions import Promotion, champion_round

TRUST = Path(__file__).with_name("trust.yaml")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("trust")
    return workspace, printed(rlhf("run", TRUST, "--json", workspace=workspace))


def champion(workspace):
    found = Tracker.open(workspace, "trust").models.get("trust-policy", CHAMPION)
    assert found is not None
    return found


def chosen(after, round_):
    return Promotion(campaign="c", after=after, round=round_, version=round_ + 1)


def test_the_champion_by_verdicts_and_choices():
    assert champion_round([True, False, True, False], []) == 2
    assert champion_round([True, True, True], [chosen(2, 1)]) == 1
    # Earlier rounds stay what they were, and the gate may promote again.
    assert champion_round([True, True], [chosen(2, 0)]) == 1
    assert champion_round([True, True, True, True], [chosen(2, 0)]) == 3
    assert champion_round([True, False, False], [chosen(1, 1), chosen(2, 2)]) == 2


def test_a_round_is_measured_by_all_means(campaign):
    _, summary = campaign
    metrics = summary["rounds"][2]["metrics"]
    assert {
        "elo", "win_rate_length_controlled", "proxy_gold_gap", "sqrt_kl", "reward_spread", "reward_accuracy",
        "first_shown_chosen", "reward_length_correlation", "reward_accuracy_member_0",
    } <= set(metrics)  # fmt: skip
    assert metrics["elo"]["value"] != 1000
    reasons = " ".join(summary["rounds"][2]["reasons"])
    assert "error" in reasons and "round 2" in reasons


def test_questions_of_both_arms(campaign):
    workspace, _ = campaign
    found = printed(rlhf("lineage", "trust-policy/3", "--json", workspace=workspace))
    (newest, *_) = found["snapshots"].values()
    reasons = newest["by_reason"]
    assert any(reason.startswith("control") for reason in reasons)
    assert any(reason.startswith("uncertain") for reason in reasons)


def test_the_report_shows_what_evaluators_found(campaign):
    workspace, _ = campaign
    (page,) = (workspace / "reports").glob("*/round-2.html")
    text = page.read_text()
    assert "elo" in text and "against" in text and "veto" not in text


def test_patches_stop_a_round_and_can_be_put_right(campaign, tmp_path):
    workspace, _ = campaign
    path = tmp_path / "patches.jsonl"
    same = {"prompt": "Article: x\nHeadline:", "better": "the same", "worse": "the same", "why": "impossible"}
    path.write_text(json.dumps(same | {"since": 2}))
    patched = ["run", TRUST, "--set", f"patches=[{path}]"]
    done = rlhf(*patched, workspace=workspace, check=False)
    assert done.returncode == 2
    assert "reward model of round 2 gets 1 of 1 patched examples wrong" in done.stderr
    assert "'the same' must be above 'the same' (impossible)" in done.stderr
    # From the third round on: the first two are as they were, and nothing is computed again.
    path.write_text(json.dumps(same | {"since": 3}))
    rows = printed(rlhf(*patched, "--dry-run", "--json", workspace=workspace))
    assert {row["stage"] for row in rows if row["state"] != "cached"} == {"patches"}


def test_another_version_becomes_the_champion(campaign):
    workspace, _ = campaign
    last = champion(workspace)
    other = next(v for v in (1, 2, 3) if v != last.version)
    wrong = rlhf("promote", "trust", "--to", 9, workspace=workspace, check=False)
    assert wrong.returncode == 2 and "has no version 9" in wrong.stderr and "1 (round 0)" in wrong.stderr
    said = rlhf("promote", "trust", "--to", other, "--reason", "complaints", workspace=workspace).stdout
    assert f"version {other}" in said
    again = rlhf("promote", "trust", "--to", other, workspace=workspace, check=False)
    assert again.returncode == 2 and "champion already" in again.stderr
    now = champion(workspace)
    evidence = json.loads(now.tags["rlhf.chosen"])
    assert (now.version, evidence["reason"], evidence["instead_of"]) == (other, "complaints", last.version)


@pytest.mark.slow
def test_a_rollback_counts_for_the_next_round(campaign):
    workspace, before = campaign
    now = champion(workspace)
    if "rlhf.chosen" not in now.tags:
        other = 2 if now.version != 2 else 1
        rlhf("promote", "trust", "--to", other, workspace=workspace)
        now = champion(workspace)
    other = now.version
    # Replaying the campaign changes nothing about it; the next round starts from it.
    assert printed(rlhf("run", TRUST, "--json", workspace=workspace)) == before
    assert champion(workspace).version == other
    rows = printed(rlhf("run", TRUST, "--rounds", 3, "--dry-run", "--json", workspace=workspace))
    assert {row["state"] for row in rows if row["round"] < 3} == {"cached"}
    after = printed(rlhf("run", TRUST, "--rounds", 3, "--json", workspace=workspace))
    versions = Tracker.open(workspace, "trust").models.versions("trust-policy")
    third = next(version for version in versions if version.origin.round == 3)
    assert third.origin.parent_policy == now.origin.digest
    if not after["rounds"][3]["promoted"]:
        assert champion(workspace).version == other
