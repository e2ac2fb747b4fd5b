"""trl_dpo and trl_kto on what people said, in pipelines without a reward model."""

import pytest
from optimizer_kit import PROMPTS, Recorder

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.lm.model import weights_digest
from rlhf_core.records import Answer, Comparison, Question, Ranking, Rating, Reaction, Sample
from rlhf_plugins.optimizers.trl.examples import preferred, verdicts
from rlhf_plugins.optimizers.trl_dpo import TrlDpo
from rlhf_plugins.optimizers.trl_kto import TrlKto
from rlhf_plugins.optimizers.trl_rloo import TrlRloo

GOOD, BAD = "sun and sea", "mud"


def question(prompt, *texts):
    samples = tuple(Sample(prompt_id=prompt.id, text=text) for text in texts)
    return Question(prompt=prompt, samples=samples)


def answers(prompts, say=lambda asked: [asked.compare([1, 0], annotator="ada")]):
    asked = [question(prompt, GOOD, BAD) for prompt in prompts]
    return [Answer(question=each, feedback=said) for each in asked for said in say(each)]


FEEDBACK = FeedbackSet.of(answers(PROMPTS[:9]))
VALIDATION = FeedbackSet.of(answers(PROMPTS[9:]))
each_kind = pytest.mark.parametrize("optimizer", [TrlDpo, TrlKto])


def train(optimizer, job, run=None, **options):
    settings = {"lr": 1e-2, "checkpoint_every": 1, "batch": 3, "epochs": 4, "beta": 0.1, **options}
    metrics = optimizer(run=run or Recorder(), **settings).optimize(job)
    return weights_digest(job.policy.lm), metrics


@each_kind
def test_it_learns_what_people_said_and_reports_no_reward(job, optimizer):
    made = job(reward=None, feedback=FEEDBACK, validation=VALIDATION)
    run = Recorder()
    _, metrics = train(optimizer, made, run)
    assert set(metrics) == {"kl", "answer_tokens", "eos_rate", "preference_accuracy"}
    assert metrics["preference_accuracy"].value == 1
    assert metrics["preference_accuracy"].n == 3
    assert metrics["kl"].value > 0.05
    assert run.rows[-1]["policy_loss"] < run.rows[0]["policy_loss"] - 0.05
    counted = "9 pairs" if optimizer is TrlDpo else "18 answers"
    assert run.notes == [f"learns from {counted} that people judged"]


@each_kind
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, optimizer):
    def made():
        return job(reward=None, feedback=FEEDBACK, validation=VALIDATION)

    whole = train(optimizer, made())
    with pytest.raises(KeyboardInterrupt):
        train(optimizer, made(), Recorder(folder=tmp_path, stop_at=2))
    assert train(optimizer, made(), Recorder(folder=tmp_path)) == whole


@each_kind
def test_without_anything_to_learn_from(job, optimizer):
    before = job()
    for nothing in (None, FeedbackSet()):
        with pytest.raises(TrainingError, match="no feedback is on training prompts"):
            train(optimizer, job(reward=None, feedback=nothing))
    ties = FeedbackSet.of(answers(PROMPTS, lambda asked: [asked.compare([1, 1], annotator="ada")]))
    with pytest.raises(TrainingError, match="nothing to prefer"):
        train(optimizer, job(reward=None, feedback=ties, policy=before.policy))
    assert weights_digest(before.policy.lm) == weights_digest(job().policy.lm)


@each_kind
def test_a_reward_comes_first(job, optimizer):
    with_reward = train(optimizer, job(feedback=FEEDBACK), answers=2, prompts=6, batch=2)
    without_feedback = train(optimizer, job(), answers=2, prompts=6, batch=2)
    assert with_reward == without_feedback
    assert "reward" in with_reward[1]


def test_what_they_declare():
    assert (TrlDpo.needs_reward, TrlKto.needs_reward, TrlRloo.needs_reward) == (False, False, True)
    assert TrlDpo.feedback_wanted(reward=False) == {Comparison, Ranking, Rating}
    assert TrlKto.feedback_wanted(reward=False) == {Comparison, Ranking, Rating, Reaction}
    assert TrlDpo.feedback_wanted(reward=True) == TrlKto.feedback_wanted(reward=True) == frozenset()


def test_one_that_needs_a_reward_says_so(job):
    with pytest.raises(TrainingError, match="this optimizer trains on a reward, and the pipeline has no reward model"):
        TrlRloo(steps=1, batch=2, answers=2).optimize(job(reward=None))


def test_pairs_are_by_all_answers_together():
    asked = question(PROMPTS[0], "one", "two", "three")
    said = [asked.rank([3, 2, 1], annotator="ada"), asked.rank([2, 3, 1], annotator="ben")]
    given = FeedbackSet.of(Answer(question=asked, feedback=each) for each in said)
    assert {(better.text, worse.text) for _, better, worse in preferred(given)} == {("one", "three"), ("two", "three")}


def test_an_answer_is_good_or_bad_by_all_that_was_said_of_it():
    compared, rated = question(PROMPTS[0], "a", "b", "c"), [question(prompt, "d") for prompt in PROMPTS[1:4]]
    liked = question(PROMPTS[5], "e", "f", "g")
    ranked = compared.rank([3, 2, 1], annotator="ada")  # b wins once and loses once
    given = [Answer(question=compared, feedback=ranked)]
    given += [
        Answer(question=asked, feedback=asked.rate(0, score, annotator="ada"))
        for asked, score in zip(rated, (5, 3, 1), strict=True)
    ]
    for sample, action, count in ((0, "like", 9), (0, "dislike", 2), (1, "dislike", 1), (2, "click", 50)):
        name = liked.samples[sample].id
        reaction = Reaction(
            question_id=liked.id, annotator="site", sample=name, action=action, count=count, exposures=100
        )
        given.append(Answer(question=liked, feedback=reaction))
    found = {(each.prompt.id, each.sample.text): each.good for each in verdicts(FeedbackSet.of(given))}
    assert found == {
        (PROMPTS[0].id, "a"): True, (PROMPTS[0].id, "c"): False,
        (PROMPTS[1].id, "d"): True, (PROMPTS[3].id, "d"): False,
        (PROMPTS[5].id, "e"): True, (PROMPTS[5].id, "f"): False,
    }  # fmt: skip
