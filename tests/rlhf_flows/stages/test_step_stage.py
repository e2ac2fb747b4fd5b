"""A step at work: what it is handed, and what its artifact says."""

import json

import pytest

from rlhf_core import PluginConfig, RewardModel, Step, StepOutcome, Use
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.rows import answer_row
from rlhf_core.feedback.snapshot import Snapshot, write_snapshot
from rlhf_core.metrics import Metric
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_flows.stages.artifacts_io import CONFIGURED, load_reward, remember_use
from rlhf_flows.stages.step import run_step
from stub_plugins import stub_registry

SEEN = []
WHO = ("ann", "bob", "cara")


class Stored(RewardModel):
    """Has one number."""

    learns_from = ()
    shift = 0.0

    class Config(PluginConfig):
        width: int = 1
        """Another number."""

    def save(self, folder):
        (folder / "shift.json").write_text(json.dumps(self.shift))

    def load(self, folder):
        self.shift = json.loads((folder / "shift.json").read_text())


class Look(Step):
    """Looks at the decision."""

    takes = {"decision"}

    class Config(PluginConfig):
        word: str = "none"
        """What it says."""

    def step(self, job):
        SEEN.append(job)
        self.run.note("looked")
        return StepOutcome({"looked": Metric(value=1)}, self.config.word)


class Shift(Step):
    """Moves the reward model."""

    takes = {"reward"}
    gives = "reward"

    def step(self, job):
        SEEN.append(job)
        model = Registry(plugins=OWN).create("reward_models", job.uses["reward"])
        model.load(job.inputs["reward"] / "reward")
        model.shift += model.config.width
        (job.out / "reward").mkdir()
        model.save(job.out / "reward")
        return StepOutcome(summary="moved")


class Fewer(Step):
    """Leaves out ann's answers."""

    takes = {"snapshot"}
    gives = "snapshot"

    def step(self, job):
        before = Snapshot.read(job.inputs["snapshot"])
        kept = [answer for answer in FeedbackSet.open(job.inputs["snapshot"]).answers()
                if answer.feedback.annotator != "ann"]  # fmt: skip
        write_snapshot(job.out, [rows_of(kept)], before.watermark)
        return StepOutcome(summary="without ann")


OWN = [
    PluginInfo(kind, plugin.__name__.lower(), "own", "1.0", f"{__name__}:{plugin.__name__}")
    for kind, plugin in (("reward_models", Stored), ("steps", Look), ("steps", Shift), ("steps", Fewer))
]
REGISTRY = Registry(plugins=[*stub_registry().plugins, *OWN])


def answers(n):
    """Of three annotators to `n` questions."""
    found = []
    for number in range(n):
        prompt = Prompt(text=f"prompt {number}")
        samples = tuple(Sample(prompt_id=prompt.id, text=f"answer {letter}") for letter in "ab")
        question = Question(prompt=prompt, samples=samples)
        found += [Answer(question=question, feedback=question.compare([1, 0], annotator=who)) for who in WHO]
    return found


def rows_of(answers):
    return [answer_row(answer) for answer in answers]


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


def test_a_step_is_handed_what_it_takes_and_all_that_is_known(bench):
    results = {
        "decision": bench.artifact("decision", metrics={"kl": Metric(value=2)}, promote=True, reasons=["better"]),
        "policy": bench.artifact("policy", metrics={"loss": Metric(value=1)}),
    }
    context = bench.context(REGISTRY, results, [("step", "steps", Use(use="look", word="seen"))], "note")
    outcome = run_step(context)
    (job,) = SEEN
    assert job.inputs == {"decision": bench.artifacts.path(results["decision"].ref)}
    assert (job.pipeline, job.round, job.out) == ("demo", 2, context.draft)
    assert job.info["promote"] is True and job.info["reasons"] == ["better"]
    assert set(job.metrics) == {"kl", "loss"} and job.uses == {}
    assert outcome.metrics == {"looked": Metric(value=1)} and outcome.info == {"summary": "seen"}
    assert context.run.notes == ["looked"]


def reward_artifact(bench, use=None):
    def fill(folder):
        (folder / "reward").mkdir()
        (folder / "reward" / "shift.json").write_text("0.5")
        if use is not None:
            remember_use(folder / "reward", use)

    return bench.artifact("reward", fill, summary="accuracy 0.8")


@pytest.mark.parametrize(("chosen", "width"), [(None, 2), (Use(use="stored", width=7), 7)])
def test_a_step_loads_the_reward_model_that_it_takes_and_what_it_makes_of_it_is_loaded_behind_it(bench, chosen, width):
    roles = [("step", "steps", Use(use="shift")), ("reward", "reward_models", Use(use="stored", width=2))]
    context = bench.context(REGISTRY, {"reward": reward_artifact(bench, chosen)}, roles, "reward")
    outcome = run_step(context)
    assert SEEN[0].uses == {"reward": chosen or Use(use="stored", width=2)}
    assert outcome.info == {"summary": "moved"}
    assert (context.draft / "reward" / CONFIGURED).exists() == (chosen is not None)
    made = bench.artifact("reward", lambda folder: (context.draft / "reward").rename(folder / "reward"))
    loaded = load_reward(bench.context(REGISTRY, {"reward": made}, roles), "reward")
    assert loaded.shift == 0.5 + width and loaded.config.width == width


def test_a_step_that_takes_a_policy_knows_how_it_is_loaded(bench):
    class Takes(Look):
        takes = {"policy"}

    globals()["Takes"] = Takes
    registry = Registry(plugins=[*REGISTRY.plugins, PluginInfo("steps", "takes", "own", "1.0", f"{__name__}:Takes")])
    results = {"policy": bench.artifact("policy"), "decision": bench.artifact("decision", promote=False)}
    policy = Use(use="model", model="tiny")
    run_step(bench.context(registry, results, [("step", "steps", Use(use="takes")), ("policy", "policies", policy)]))
    (job,) = SEEN
    assert job.uses == {"policy": policy} and list(job.inputs) == ["policy"]
    assert job.info["promote"] is False


def test_a_snapshot_that_a_step_replaced_says_what_it_holds(bench):
    def fill(folder):
        write_snapshot(folder, [rows_of(answers(4))], watermark=12)

    before = bench.artifact("snapshot", fill, rows=12, digest="d", annotators={"ann": 4, "bob": 4, "cara": 4})
    context = bench.context(REGISTRY, {"snapshot": before}, [("step", "steps", Use(use="fewer"))], "snapshot")
    outcome = run_step(context)
    assert outcome.info == {
        "rows": 8, "questions": 4, "kinds": {"comparison": 8}, "annotators": {"bob": 4, "cara": 4},
        "digest": Snapshot.read(context.draft).digest, "summary": "without ann",
    }  # fmt: skip
