import numpy as np
import pytest
from texts_kit import comparisons, job, questions, scores, small_policy

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins.registry import files_digest
from rlhf_core.records import Answer
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins.reward_models.ensemble import Ensemble, combine, resampled

MEMBERS = [{"use": "feed_forward", "epochs": 3, "batch": 16, "lr": 1e-2}]
RULES = [
    {"use": "rule", "rules": [{"name": "plan", "pattern": "plan", "points": points}]} for points in (1.0, 2.0, 6.0)
]


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Ensemble, members=MEMBERS, copies=2)


def test_combinations_by_hand():
    table = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    assert combine(table, "mean", 1.0) == pytest.approx([3, 1])
    assert combine(table, "min", 1.0) == pytest.approx([1, 0])
    # Variances of the members: ((2)^2 + 1 + 9) / 3 = 14/3 and (1 + 1 + 4) / 3 = 2.
    assert combine(table, "uncertainty_weighted", 0.5) == pytest.approx([3 - 7 / 3, 0])


def test_scores_and_spread_of_members_that_learn_nothing():
    model = Ensemble(members=RULES)
    found = scores(model, "a plan", "storm")
    assert found.mean == [3.0, 0.0]
    assert found.spread == pytest.approx([np.std([1, 2, 6]), 0])
    assert found.members == [[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]]
    assert scores(Ensemble(members=RULES, combine="min"), "a plan").mean == [1.0]


def test_members_differ_and_agree_on_what_is_clear(tmp_path):
    model = Ensemble(members=MEMBERS, copies=3)
    metrics = model.fit(job(None, comparisons, train=200))
    assert metrics["reward_accuracy"].value > 0.9
    assert {f"reward_accuracy_member_{i}" for i in range(3)} <= set(metrics)
    assert metrics["reward_spread"].value > 0
    found = scores(model, "good plan", "storm")
    assert len({tuple(member) for member in found.members}) == 3
    assert found.mean[0] > found.mean[1]
    model.save(tmp_path)
    again = Ensemble(members=MEMBERS, copies=3)
    again.load(tmp_path)
    assert scores(again, "good plan", "storm") == found
    with pytest.raises(RlhfError, match="3 members, the pipeline's has 2"):
        Ensemble(members=MEMBERS, copies=2).load(tmp_path)


def mistaken(n, seed):
    """Every fourth answer is wrong."""
    for number, (question, counts) in enumerate(questions(n, seed)):
        seen = counts if number % 4 else [-count for count in counts]
        yield Answer(question=question, feedback=question.compare(seen, annotator="a"))


def test_members_that_learn_count_alike_whatever_their_calibration():
    model = Ensemble(members=MEMBERS, copies=3)
    learn = job(None, mistaken, train=200)
    model.fit(learn)
    before = scores(model, "good plan", "storm", "river park")
    # As if a few odd held-out pairs had made one of them twenty times as sure of itself.
    model.models[1].temperature /= 20
    model._scale(learn, learn.validation.pairs())
    after = scores(model, "good plan", "storm", "river park")
    assert after.mean == pytest.approx(before.mean)
    assert np.array(after.members) == pytest.approx(np.array(before.members))
    # Together they are calibrated: no other temperature fits the held-out pairs better.
    pairs = learn.validation.pairs()
    margins, stated = margins_of(model, pairs)
    losses = [np.logaddexp(0, -margins * (2 * stated - 1) * factor).mean() for factor in (0.9, 1.0, 1.1)]
    assert min(losses) == losses[1]


def margins_of(model, pairs):
    table = [model.score([pair.prompt] * 2, [pair.first, pair.second]).mean for pair in pairs]
    return np.array([first - second for first, second in table]), np.array([pair.probability for pair in pairs])


def test_copies_see_resamples_of_whole_prompts():
    feedback = FeedbackSet.of(comparisons(200, 1))
    first, again, second = (resampled(feedback, 7, number) for number in (0, 0, 1))
    assert [a.id for a in first.answers()] == [a.id for a in again.answers()]
    assert {a.id for a in first.answers()} != {a.id for a in second.answers()}
    # 1 - 1/e of the prompts are drawn.
    assert 0.55 < len(first) / len(feedback) < 0.72


def test_members_have_checkpoints_of_their_own(tmp_path):
    model = Ensemble(members=MEMBERS, copies=2, run=Run(3, Checkpoints(tmp_path)))
    expected = model.fit(job(None, comparisons))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member-0", "member-1"]
    # Finished members are taken from there: nothing is trained again.
    resumed = Ensemble(members=MEMBERS, copies=2, run=Run(3, Checkpoints(tmp_path)))
    steps = []
    resumed.run.log = lambda metrics, step: steps.append(step)
    assert resumed.fit(job(None, comparisons)) == expected
    assert steps == []


def test_going_on_member_by_member():
    first = Ensemble(members=MEMBERS, copies=2)
    first.fit(job(None, comparisons))
    members = [MEMBERS[0] | {"continue_from": "previous", "epochs": 1, "lr": 1e-6}]
    second = Ensemble(members=members, copies=2)
    second.fit(job(None, comparisons, previous=first))
    ours, theirs = (np.array(scores(model, "good plan", "storm").members) for model in (second, first))
    assert ours[:, 0] - ours[:, 1] == pytest.approx(theirs[:, 0] - theirs[:, 1], rel=0.1)


MIXED = [*MEMBERS, RULES[0], {"use": "pairwise", "epochs": 1, "batch": 16}]


def test_members_that_learn_are_known_from_the_configuration():
    assert Ensemble.learners(Ensemble.Config(members=MIXED)) == (0, 2)
    assert Ensemble.learners(Ensemble.Config(members=MIXED, copies=2)) == (0, 1, 4, 5)
    assert Ensemble.learners(Ensemble.Config(members=RULES)) == ()


def learnt_apart(learn, folder, members, **options):
    """Each member fitted by an ensemble of its own, the last one first, and joined in another one."""
    for number in reversed(Ensemble.learners(Ensemble.Config(members=members, **options))):
        model = Ensemble(members=members, run=Run(3), **options)
        model.fit_part(number, learn)
        (folder / str(number)).mkdir(parents=True)
        model.part(number).save(folder / str(number))
    joined = Ensemble(members=members, run=Run(3), **options)
    for number in Ensemble.learners(joined.config):
        joined.part(number).load(folder / str(number))
    return joined, joined.join(learn)


def written(model, folder):
    """What is saved, but for what transformers notes of where a tokenizer was loaded from."""
    folder.mkdir()
    model.save(folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "tokenizer_config.json"]
    return {path.relative_to(folder).as_posix(): files_digest(path) for path in files}


@pytest.mark.parametrize(("members", "copies"), [(MEMBERS, 2), (MIXED, 1)], ids=["copies", "mixed"])
def test_members_fitted_apart_and_joined_are_the_same_to_the_bit(tmp_path, members, copies):
    base, options = small_policy(), {"train": 40, "validation": 24}
    together, previous = Ensemble(members=members, copies=copies, run=Run(3)), Ensemble(members=members, copies=copies)
    previous.fit(job(base, comparisons, **options))
    learn = job(base, comparisons, previous=previous, **options)
    expected = together.fit(learn)
    joined, metrics = learnt_apart(learn, tmp_path / "parts", members, copies=copies)
    assert metrics == expected
    assert written(joined, tmp_path / "joined") == written(together, tmp_path / "together")
