"""What is remembered of campaigns, and documents that cannot be read."""

import pytest

from rlhf_flows.campaign.ledger import campaigns


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def test_rounds_are_found_by_their_numbers(command):
    ledger = command().go_on(2).ledger
    index = ledger.index()
    assert (index.rounds, index.pipeline, index.seed, index.rebuilt) == (3, "demo", 7, False)
    assert index.learnt_upto > 0 and index.at
    assert [ledger.round(number).round for number in range(3)] == [0, 1, 2]
    assert ledger.round(3) is None
    assert "rebuilt" not in ledger.artifacts.read_text(f"campaigns/demo-{ledger.campaign}.json")


def test_two_campaigns_of_one_pipeline_and_one_of_another(command):
    command().go_on(2)
    other = command({"seed": 8}).go_on(1)
    command({"pipeline": "another"}).go_on(1)
    found = campaigns(other.artifacts, "demo")
    assert [(summary.seed, len(summary.rounds)) for summary in found] == [(8, 2), (7, 3)]  # the last one first
    assert {summary.pipeline for summary in campaigns(other.artifacts)} == {"demo", "another"}
    assert command().ledger.index().rounds == 3


def test_more_rounds_other_patches_and_other_places_continue_a_campaign(command, tmp_path):
    (tmp_path / "patch.jsonl").write_text("")
    key = command().ledger.campaign
    same = {"rounds": 9, "patches": [str(tmp_path / "patch.jsonl")], "run_on": {"workers": 4}}
    assert command(same).ledger.campaign == key
    assert command({"seed": 1}).ledger.campaign != key


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_half_an_index_costs_a_look_and_no_round(command, documents, keep):
    before = command().go_on(2)
    cut(documents.path("campaigns/*.json"), keep)
    assert before.ledger.index().rebuilt and before.ledger.index().rounds == 3
    assert campaigns(before.artifacts) == []
    after = command().go_on(2)
    assert after.went_through == []
    assert after.notes == ["the index of this campaign's rounds could not be read: 3 are looked at again"]
    assert after.ledger.index() == before.ledger.index().model_copy(
        update={"rebuilt": False, "verified_upto": after.ledger.index().verified_upto, "at": after.ledger.index().at,
                "learnt_upto": 12}
    )  # fmt: skip
    assert command().go_on(2).notes == []


@pytest.mark.parametrize("keep", [0, 1, 200, -1])
def test_half_a_rounds_document_has_the_round_gone_through_again(command, documents, keep):
    before = command().go_on(2)
    cut(documents.path("rounds/*-0001.json"), keep)
    assert before.ledger.round(1) is None
    assert [done.round for done in campaigns(before.artifacts)[0].rounds] == [0, 2]
    after = command().go_on(2)
    assert set(after.computed) == {"1/snapshot"}
    assert {name.partition("/")[0] for name in after.went_through} == {"1"}
    assert after.ledger.index().rounds == 3
    assert after.campaign.rounds == before.campaign.rounds


def test_a_document_that_is_another_rounds_is_not_taken_for_this_one(command, documents):
    before = command().go_on(2)
    first, second = (documents.path(f"rounds/*-000{number}.json") for number in (1, 2))
    first.write_bytes(second.read_bytes())
    assert command().go_on(2).campaign.rounds == before.campaign.rounds


def test_foreign_documents_are_passed_over(command, documents, tmp_path):
    ledger = command().go_on(1).ledger
    folder = tmp_path / "artifacts" / "campaigns"
    (folder / "README.md").write_text("what is this?")
    (folder / "other.json").write_text('{"pipeline": "demo", "stars": 5}')
    (folder / "list.json").write_text("[]")
    assert len(campaigns(ledger.artifacts)) == 1
    documents.edit(f"campaigns/*{ledger.campaign}.json", campaign="another")
    assert ledger.index().rebuilt
