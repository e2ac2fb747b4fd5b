"""Going on with a campaign: finished rounds that hold are taken over, and nothing of them is run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.records import Answer
from rlhf_flows.campaign import past
from rlhf_flows.promotions import Promotion
from stub_plugins import stub_registry


def policies(command):
    return [done.policy for done in command.campaign.rounds]


def test_a_campaign_goes_on_behind_its_finished_rounds_without_running_anything(command):
    first = command().go_on(2)
    assert len(first.computed) == len(set(first.computed)) and "2/gate" in first.computed
    second = command().go_on(2)
    assert second.went_through == []
    assert second.campaign.rounds == first.campaign.rounds
    third = command().go_on(3)
    assert {name.partition("/")[0] for name in third.went_through} == {"3"}
    assert policies(third)[:3] == policies(first)
    assert third.campaign.standing().champion == 3
    assert [asked.round for asked in third.campaign.asked] == [1, 2, 3]


def test_a_round_remembers_what_it_learnt_from_and_started_at(command):
    done = command().go_on(1).campaign.rounds[1]
    assert done.feedback == done.result("1/snapshot") and done.feedback.info["rows"] == 6
    assert done.reward == done.result("1/reward").ref
    assert done.parent == command().go_on(1).campaign.rounds[0].policy
    assert done.asked.answered == ("1/answers_pairs",)
    assert done.metrics["win_rate"].value == 0.6


def test_a_kill_between_a_rounds_document_and_the_index(command, documents):
    before = command().go_on(2)
    documents.edit("campaigns/*.json", rounds=2)
    after = command().go_on(2)
    assert after.computed == [name for name in after.computed if name == "2/snapshot"]
    assert {name.partition("/")[0] for name in after.went_through} == {"2"}
    assert policies(after) == policies(before)
    assert after.ledger.index().rounds == 3


def test_a_kill_while_earlier_rounds_are_gone_through_makes_the_campaign_no_shorter(command):
    """The first round is computed anew, and comes out as it was: the second one stays."""
    first = command().go_on(2)
    again = command()
    again.past.lost.add(first.campaign.rounds[1].result("1/reward").ref)
    again.artifacts.discard(first.campaign.rounds[1].result("1/reward").ref)
    again.begin()
    again.campaign.collect()
    again.past.remember(again.campaign.retrain())
    assert again.ledger.index().rounds == 3
    assert again.ledger.index().verified_upto is None


def test_a_lost_artifact_is_made_again_and_the_rounds_behind_it_are_taken_over(command):
    first = command().go_on(3)
    lost = first.campaign.rounds[2].result("2/reward").ref
    second = command()
    second.artifacts.discard(lost)
    second.past.lost.add(lost)
    second.go_on(3)
    assert [name for name in second.computed if not name.endswith("snapshot")] == ["2/reward"]
    assert {name.partition("/")[0] for name in second.went_through} == {"2"}
    assert policies(second) == policies(first)
    assert command().go_on(3).went_through == []


def own_registry(version="1.0"):
    plugins = [info for info in stub_registry().plugins if info.name != "threshold"]
    gate = PluginInfo("gates", "threshold", "stubs", version, "stub_plugins:Threshold")
    return Registry(plugins=[*plugins, gate])


def test_another_version_of_a_late_plugin_keeps_what_stands_before_it(command):
    first = command(registry=own_registry()).go_on(2)
    second = command(registry=own_registry("2.0")).go_on(2)
    assert not any(name.startswith("0/") for name in second.went_through)
    assert {name for name in second.computed if "snapshot" not in name} == {"1/gate", "2/gate"}
    assert policies(second) == policies(first)


def test_an_annotator_with_another_configuration_keeps_the_start_and_the_questions(command):
    command().go_on(2)
    second = command({"ask": {"questions": 10, "annotators": [{"use": "pairs", "raters": 4}]}}).go_on(1)
    computed = [name for name in second.computed if "snapshot" not in name]
    assert computed[0] == "1/answers_pairs" and "1/questions" not in computed
    assert "0/warm_start" not in computed and "1/reward" not in computed  # the answers are the same ones
    assert second.ledger.index().rounds == 2


def test_a_withdrawn_answer_of_the_second_round_keeps_the_first_one(command):
    first = command().go_on(3)
    of_second = first.campaign.rounds[2].asked
    with FeedbackStore.open(first.store_url) as store:
        answers = [answer for answer in store.answers() if "round 2" in answer.question.prompt.content]
        assert len(answers) == 6 and of_second.round == 2
        store.withdraw(feedback_id=answers[0].feedback.id)
    second = command().go_on(3)
    assert {name.partition("/")[0] for name in second.went_through} == {"2", "3"}
    assert {"2/reward", "3/reward"} <= set(second.computed) and "2/questions" not in second.computed
    assert policies(second)[:2] == policies(first)[:2] and policies(second)[2] != policies(first)[2]
    assert command().go_on(3).went_through == []


def test_a_full_look_that_finds_nothing_is_the_last_one(command, monkeypatch):
    first = command().go_on(2)
    first.ledger.verified(None, first.ledger.index().learnt_upto)
    looked = []
    look = past.look
    monkeypatch.setattr(past, "look", lambda node, *rest: looked.append(node.id) or look(node, *rest))
    assert command().go_on(2).went_through == []
    assert looked == ["1/snapshot", "2/snapshot"]
    assert command().go_on(2).went_through == [] and len(looked) == 2


def test_new_answers_are_no_reason_to_look(command, monkeypatch):
    first = command().go_on(2)
    learnt = first.ledger.index().learnt_upto
    with FeedbackStore.open(first.store_url) as store:
        question = next(iter(store.answers())).question
        store.add([Answer(question=question, feedback=question.compare([0, 1], annotator="late"))])
    monkeypatch.setattr(past, "look", None)
    second = command().go_on(2)
    assert second.went_through == [] and second.ledger.index().learnt_upto == learnt


def test_champions_that_the_gate_and_people_chose(command):
    verdicts = {1: True, 2: False, 3: True}
    first = command(promotes=verdicts.get).go_on(2)
    assert [first.campaign.champion_before(number) for number in (1, 2, 3)] == [0, 1, 1]
    assert first.campaign.standing().champion == 1
    back = Promotion(campaign=first.ledger.campaign, after=2, round=0, version=1)
    second = command(promotes=verdicts.get, chosen=[back]).go_on(3)
    # The rounds before the choice stay what they were.
    assert {name.partition("/")[0] for name in second.went_through} == {"3"}
    assert second.campaign.rounds[3].parent == second.campaign.rounds[0].policy
    # The gate promoted again after it.
    assert second.campaign.standing().champion == 3
    forth = back.model_copy(update={"after": 3, "round": 2})
    third = command(promotes=verdicts.get, chosen=[back, forth]).go_on(3)
    assert third.went_through == [] and third.campaign.standing().champion == 2


def test_a_campaign_that_asks_nobody(command):
    silent = command({"ask": None, "reward": {"use": "words"}})
    silent.go_on(2)
    assert silent.campaign.has_asked and silent.campaign.asked == []
    assert silent.campaign.rounds[2].snapshot is None and silent.campaign.rounds[2].feedback is None
    assert command({"ask": None, "reward": {"use": "words"}}).go_on(2).went_through == []


def test_whether_the_coming_round_has_asked(command):
    one = command()
    one.begin()
    assert not one.campaign.has_asked and not one.campaign.is_collected()
    one.campaign.collect()
    assert one.campaign.has_asked
    other = command()
    other.begin()
    assert not other.campaign.has_asked and other.campaign.is_collected()


def test_the_graph_of_the_last_round_is_whole(command):
    found = json.loads(command().go_on(1).campaign.graph_json())
    assert "1/questions" in json.dumps(found) and "1/gate" in json.dumps(found)


RECALL = """
import sys, time
from pathlib import Path
sys.path[:0] = [{support!r}, {here!r}]
from conftest import Command
command = Command(Path({folder!r}))
began = time.perf_counter()
command.begin()
cold = time.perf_counter() - began
command = Command(Path({folder!r}), registry=command.memory.registry)
began = time.perf_counter()
command.begin()
warm = time.perf_counter() - began
assert command.campaign.coming == 31 and not command.went_through, command.went_through[:5]
assert "mlflow" not in sys.modules and "torch" not in sys.modules
print(cold, warm)
"""


@pytest.mark.timeout(120)
def test_thirty_finished_rounds_are_taken_over_in_a_moment_and_without_mlflow(command, tmp_path):
    first = command().go_on(30)
    here = Path(__file__).parent
    support = here.parents[1] / "support"
    script = RECALL.format(support=str(support), here=str(here), folder=str(tmp_path))
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    cold, warm = map(float, printed.stdout.split())
    print(f"30 rounds, {len(first.memory.finished)} stages: {cold:.2f} s, and {warm:.2f} s once the code was read")
    assert warm < 1
