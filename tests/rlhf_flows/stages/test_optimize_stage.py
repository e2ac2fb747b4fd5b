"""What an optimizer is handed: a policy, a reward where there is one, and the feedback where it learns from that."""

import pytest

from rlhf_core import Optimizer, Policy, RewardModel, Use
from rlhf_core.errors import TrainingError
from rlhf_core.feedback.rows import answer_row
from rlhf_core.feedback.snapshot import write_snapshot
from rlhf_core.metrics import Metric
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample
from rlhf_core.records.files import write_records
from rlhf_flows.stages.optimize import optimize_policy

JOBS = []
WHO = ("ann", "bob", "cara", "dan")


class Name(Policy):
    """Is a word."""

    word = ""

    def save(self, folder):
        (folder / "word.txt").write_text(self.word)

    def load(self, folder):
        self.word = (folder / "word.txt").read_text()


class Longer(RewardModel):
    """Likes length."""


class Rename(Optimizer):
    """Adds a letter."""

    learns_from = {Comparison}

    def optimize(self, job):
        JOBS.append(job)
        (job.keep / "left.txt").write_text("for the next round")
        job.policy.word += "!"
        return {"reward": Metric(value=0.5), "kl": Metric(value=0.125)}


REGISTRY = Registry(
    plugins=[
        PluginInfo(kind, plugin.__name__.lower(), "own", "1.0", f"{__name__}:{plugin.__name__}")
        for kind, plugin in (("policies", Name), ("reward_models", Longer), ("optimizers", Rename))
    ]
)
ROLES = [("optimizer", "optimizers", Use(use="rename")), ("policy", "policies", Use(use="name"))]
REWARD = ("reward", "reward_models", Use(use="longer"))


def answers():
    """Four people about eight training, two validation and two test prompts."""
    found = []
    for number in range(12):
        split = "validation" if number in (8, 9) else "test" if number > 9 else "train"
        prompt = Prompt(text=f"prompt {number}", split=split)
        samples = tuple(Sample(prompt_id=prompt.id, text=f"answer {letter}") for letter in "ab")
        question = Question(prompt=prompt, samples=samples)
        found += [Answer(question=question, feedback=question.compare([1, 0], annotator=who)) for who in WHO]
    return found


@pytest.fixture
def given(bench):
    """Inputs of a round's optimisation, as artifacts."""
    JOBS.clear()

    def data(folder):
        prompts = {answer.question.prompt.id: answer.question.prompt for answer in answers()}
        write_records(folder / "prompts.jsonl", prompts.values())
        write_records(folder / "demonstrations.jsonl", [])

    def policy(word):
        def fill(folder):
            (folder / "policy").mkdir()
            (folder / "policy" / "word.txt").write_text(word)
            (folder / "kept").mkdir()

        return bench.artifact("policy", fill)

    def snapshot(folder):
        write_snapshot(folder, [[answer_row(answer) for answer in answers()]], watermark=48)

    return {
        "data": bench.artifact("data", data),
        "policy": policy("champion"),
        "reference": policy("start"),
        "snapshot": bench.artifact("snapshot", snapshot),
        "previous": policy("previous"),
    }


def optimize(bench, given, roles=ROLES, annotators=0.0, leave=()):
    given = {name: result for name, result in given.items() if name not in leave}
    context = bench.context(REGISTRY, given, roles, "policy", {"annotators": annotators})
    outcome = optimize_policy(context)
    return JOBS[-1], context, outcome


def test_without_a_reward_model_it_learns_from_the_snapshots_training_and_validation_feedback(bench, given):
    job, context, outcome = optimize(bench, given)
    assert job.reward is None
    assert (len(job.feedback), len(job.validation)) == (32, 8)
    splits = [{answer.question.prompt.split for answer in part.answers()} for part in (job.feedback, job.validation)]
    assert splits == [{"train"}, {"validation"}]
    assert [prompt.split for prompt in job.prompts] == ["train"] * 8
    assert (context.draft / "policy" / "word.txt").read_text() == "champion!"
    assert (context.draft / "kept" / "left.txt").exists()
    assert job.reference.word == "start"
    assert job.previous == bench.artifacts.path(given["previous"].ref) / "kept"
    assert job.policy.version == given["policy"].ref.short and job.policy.round == 2
    assert outcome.metrics["kl"].value == 0.125 and outcome.info["summary"] == "reward 0.5, kl 0.125"


def test_annotators_who_are_held_out_to_be_measured_on_teach_no_policy_either(bench, given):
    job, context, _ = optimize(bench, given, annotators=0.25)
    heard, checked = (set(part.annotators()) for part in (job.feedback, job.validation))
    assert heard == checked and len(heard) == 3
    (left_out,) = set(WHO) - heard
    assert context.run.notes == [f"learns nothing from {left_out}: held out to be measured on"]
    assert (len(job.feedback), len(job.validation)) == (24, 6)


def test_with_a_reward_model_and_no_snapshot_it_is_handed_no_feedback(bench, given):
    job, _, _ = optimize(bench, given, [*ROLES, REWARD], leave=("snapshot", "previous"))
    assert job.feedback is None and job.validation is None and job.previous is None
    assert isinstance(job.reward, RewardModel) and type(job.reward).__name__ == "Blind"
    assert isinstance(job.reward.model, Longer)


def test_feedback_on_held_out_prompts_alone_is_an_error(bench, given):
    def only_test(folder):
        rows = [answer_row(answer) for answer in answers() if answer.question.prompt.split == "test"]
        write_snapshot(folder, [rows], watermark=48)

    given["snapshot"] = bench.artifact("snapshot", only_test)
    with pytest.raises(TrainingError, match="no feedback is on training prompts"):
        optimize(bench, given)
