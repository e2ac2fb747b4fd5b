"""Results under their keys: found again by other machines, and half a record is none."""

import json

import pytest

from rlhf_core.metrics import Metric
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.engine.results import FOLDER, Results
from rlhf_flows.stages.context import StageResult

KEY = "reward-0123"


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "root"), tmp_path / "scratch")


@pytest.fixture
def result(store):
    with store.draft("x") as draft:
        (draft / "text").write_text("weights")
        ref = store.publish("reward", draft)
    return StageResult(
        ref=ref, metrics={"accuracy": Metric(value=0.5, low=0.25, high=1.0, n=4)}, notes=("a",), seconds=2
    )


def test_what_one_machine_put_another_one_gets(store, result, tmp_path):
    assert Results(store).get(KEY) is None
    Results(store).put(KEY, result)
    other = Results(ArtifactStore(str(tmp_path / "root"), tmp_path / "other machine"))
    assert other.get(KEY) == result
    assert store.names(FOLDER) == [KEY]


def test_a_result_whose_artifact_is_gone_is_none(store, result):
    Results(store).put(KEY, result)
    store.discard(result.ref)
    assert Results(store).get(KEY) is None


@pytest.mark.parametrize("kept", ["", "{", "null", '{"metadata": {}}'])
def test_half_a_record_is_none_and_is_written_anew(store, result, kept):
    Results(store).put(KEY, result)
    store.write_text(f"{FOLDER}/{KEY}", kept)
    assert Results(store).get(KEY) is None
    Results(store).put(KEY, result)
    assert Results(store).get(KEY) == result


def test_a_record_of_another_form_is_none(store, result):
    Results(store).put(KEY, result)
    record = json.loads(store.read_text(f"{FOLDER}/{KEY}"))
    record["result"] = json.dumps(json.dumps({"unknown": 1}))
    store.write_text(f"{FOLDER}/{KEY}", json.dumps(record))
    assert Results(store).get(KEY) is None
