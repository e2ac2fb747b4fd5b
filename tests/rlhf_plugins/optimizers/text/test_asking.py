"""Preferences from annotators while the policy is optimised."""

import pytest
import torch
from optimizer_kit import PROMPTS, Recorder, ShareOfVowels

from rlhf_core.errors import TrainingError
from rlhf_core.plugins import Annotator, Scores
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Comparison, Demonstration, Ranking, Sample
from rlhf_plugins.optimizers.online_dpo import OnlineDpo
from rlhf_plugins.optimizers.text.asking import Asking
from rlhf_plugins.optimizers.text.grading import Graded
from rlhf_plugins.optimizers.text.task import Task

asked = []


def vowels(sample):
    return sum(letter in "aeiou" for letter in sample.text)


class LikesVowels(Annotator):
    yields = {Comparison, Ranking}

    def annotate(self, questions):
        for question in questions:
            asked.append(question)
            scores = [vowels(sample) for sample in question.samples]
            yield question.compare(scores) if len(scores) == 2 else question.rank(scores)


class ThreeOfFour(Annotator):
    """Four raters, of whom one disagrees."""

    yields = {Comparison}

    def annotate(self, questions):
        for question in questions:
            for rater in range(min(question.wanted, 4)):
                sign = -1 if rater == 3 else 1
                yield question.compare([sign * vowels(sample) for sample in question.samples], annotator=str(rater))


class WritesItself(Annotator):
    yields = {Demonstration}


class Opposite(ShareOfVowels):
    def score(self, prompts, samples):
        return Scores(mean=[-value for value in super().score(prompts, samples).mean])


@pytest.fixture
def installed(monkeypatch):
    """Annotators of this file under names of their own."""
    known = {"likes_vowels": LikesVowels, "three_of_four": ThreeOfFour, "writes_itself": WritesItself}
    create = Registry.create

    def with_ours(self, kind, use, run=None):
        return known[use.use](run=run) if use.use in known else create(self, kind, use, run)

    monkeypatch.setattr(Registry, "create", with_ours)
    asked.clear()


@pytest.fixture
def asking(installed, job):
    def make(name, overlap=1):
        config = OnlineDpo.Config(annotator={"use": name}, overlap=overlap)
        return Asking(config.annotator, overlap, Task(job(), config, Recorder(), name="OnlineDpo"))

    return make


def graded(texts, group):
    prompts = [PROMPTS[i // group] for i in range(len(texts))]
    samples = [Sample(prompt_id=prompt.id, text=text) for prompt, text in zip(prompts, texts, strict=True)]
    return Graded(
        experience=None, scores=torch.zeros(len(texts)), reference=None, log_ratio=None, hidden=None,
        coefficient=0.1, group=group, prompts=prompts, samples=samples,
    )  # fmt: skip


def test_the_clearest_pair_of_each_group(asking):
    found = asking("likes_vowels").preferred(graded(["xx", "ax", "aa", "bb", "bb", "ii"], 3))
    assert found.better.tolist() == [2, 5] or found.better.tolist() == [1, 5]
    assert found.worse.tolist()[0] in (0, 1)
    assert found.worse.tolist()[1] == 3, "an answer that was given twice is shown once"
    assert [len(question.samples) for question in asked] == [3, 2]
    assert found.sure.tolist() == [1.0, 1.0]


def test_ties_and_equal_answers_teach_nothing(asking):
    found = asking("likes_vowels").preferred(graded(["ax", "xa", "bb", "bb"], 2))
    assert found.better.tolist() == found.worse.tolist() == found.sure.tolist() == []
    assert len(asked) == 1, "nobody is asked about equal answers"


def test_several_raters_are_a_soft_label(asking):
    found = asking("three_of_four", overlap=4).preferred(graded(["xx", "aa"], 2))
    assert (found.better.tolist(), found.worse.tolist(), found.sure.tolist()) == ([1], [0], [0.75])


def test_the_policy_follows_the_annotator_and_not_the_reward(installed, job):
    run = Recorder()
    options = {"steps": 24, "batch": 12, "answers": 4, "lr": 1e-2, "kl": {"coefficient": 0.05}}
    OnlineDpo(run=run, annotator={"use": "likes_vowels"}, **options).optimize(job(reward=Opposite()))
    late = sum(row["reward"] for row in run.rows[-3:]) / 3
    assert late < run.rows[0]["reward"] - 0.1, "the reward counts vowels as bad"
    assert max(row["reward_agrees"] for row in run.rows) < 0.5


def test_simulated_raters_answer_while_training(job):
    run = Recorder()
    annotator = {"use": "simulated_panel", "raters": 3, "judge": {"use": "rule", "rules": [
        {"name": "vowels", "pattern": "[aeiou]", "count": True}]}}  # fmt: skip
    options = {"steps": 2, "batch": 6, "answers": 2, "annotator": annotator, "overlap": 3, "labels": "soft"}
    OnlineDpo(run=run, **options).optimize(job())
    assert all(row["pairs"] > 0 for row in run.rows)


def test_who_cannot_be_asked(asking):
    with pytest.raises(TrainingError, match="`people` answers later"):
        asking("people")
    with pytest.raises(TrainingError, match="does not say which of two answers is better"):
        asking("writes_itself")
