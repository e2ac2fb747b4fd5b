"""Cache keys, content-addressed artifacts, and results that a kill left half written."""

import json

import pytest

from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.artifacts import ArtifactStore, Ref, tree_digest
from rlhf_flows.engine import StageCache
from rlhf_flows.stage import Outcome, Stage, StageResult

PIPELINE = Pipeline(
    pipeline="p", data=(Use(use="pairs"),), policy=Use(use="x"), reward=Use(use="bt"), optimize=Use(use="x"),
    evaluate=(Use(use="x"),), gate=Use(use="x"),
)  # fmt: skip
REGISTRY = Registry(plugins=[PluginInfo("reward_models", "bt", "acme", "1.0", "stub_plugins:Bt")])


def nothing(context):
    return Outcome()


def stage(**changes):
    base = {
        "name": "reward",
        "body": nothing,
        "title": "reward",
        "kind": "reward",
        "round": 1,
        "plugins": (("reward_models", Use(use="bt")),),
        "inputs": {"snapshot": Ref(kind="s", uri="s/1", sha256="1")},
    }
    return Stage(**{**base, **changes})


def key(pipeline=PIPELINE, registry=REGISTRY, **changes):
    return stage(**changes).key(pipeline, registry)


def test_the_key_is_stable_and_knows_everything_that_matters():
    assert key() == key()
    newer = Registry(plugins=[PluginInfo("reward_models", "bt", "acme", "1.1", "stub_plugins:Bt")])
    others = [
        key(registry=newer),
        key(plugins=(("reward_models", Use(use="bt", epochs=7)),)),
        key(inputs={"snapshot": Ref(kind="s", uri="s/2", sha256="2")}),
        key(inputs={"snapshot": None}),
        key(settings={"questions": 3}),
        key(round=2),
        key(name="optimize"),
        key(pipeline=PIPELINE.model_copy(update={"seed": 1})),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_key_does_not_know_what_the_other_stages_do():
    assert key() == key(pipeline=PIPELINE.model_copy(update={"rounds": 9, "gate": Use(use="other")}))


def test_a_default_written_out_is_the_same_configuration():
    default = REGISTRY.load("reward_models", "bt").Config().model_dump()
    assert key(plugins=(("reward_models", Use(use="bt", **default)),)) == key()


def test_equal_content_is_stored_once_and_drafts_leave_nothing(tmp_path):
    store = ArtifactStore(tmp_path)
    refs = []
    for _ in range(2):
        with store.draft("x") as draft:
            (draft / "a.txt").write_text("hello")
            refs.append(store.publish("kind", draft))
    assert refs[0] == refs[1]
    assert (store.path(refs[0]) / "a.txt").read_text() == "hello"
    with pytest.raises(RuntimeError), store.draft("y") as draft:
        (draft / "half").write_text("...")
        raise RuntimeError
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_the_digest_sees_names_and_contents(tmp_path):
    for name, files in {"a": {"x": "1", "y": "2"}, "b": {"x": "2", "y": "1"}, "c": {"x": "1", "z": "2"}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert len({tree_digest(tmp_path / name) for name in "abc"}) == 3


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "storage").mkdir()
    return StageCache(tmp_path / "storage", ArtifactStore(tmp_path / "artifacts"))


def stored(cache, ref):
    result = StageResult(ref=ref, info={"summary": "done"})
    (cache.storage / "k").write_text(json.dumps({"metadata": {}, "result": json.dumps(result.model_dump_json())}))
    return result


def test_a_complete_result_is_found(cache):
    with cache.artifacts.draft("x") as draft:
        (draft / "a").write_text("1")
        ref = cache.artifacts.publish("kind", draft)
    assert cache.lookup("k") is None
    result = stored(cache, ref)
    assert cache.lookup("k") == result


@pytest.mark.parametrize("keep", [0, 1, 20, -1])
def test_half_a_result_is_no_result_and_is_removed(cache, keep):
    stored(cache, Ref(kind="kind", uri="kind/1", sha256="1"))
    path = cache.storage / "k"
    path.write_text(path.read_text()[:keep])
    assert cache.lookup("k") is None
    assert not path.exists()


def test_a_result_whose_artifact_is_gone_is_no_result(cache):
    stored(cache, Ref(kind="kind", uri="kind/1", sha256="1"))
    assert cache.lookup("k") is None
