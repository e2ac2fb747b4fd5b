import pytest
from optimizer_kit import Recorder, ShareOfVowels

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import Scores
from rlhf_plugins.optimizers.rloo import Rloo

QUICK = {"steps": 12, "batch": 8, "answers": 4, "lr": 1e-2, "checkpoint_every": 4, "kl": {"coefficient": 0.0}}


class Unsure(ShareOfVowels):
    """Likes vowels, and is the less sure the more there are: beyond a third of them caution outweighs liking."""

    def score(self, prompts, samples):
        mean = super().score(prompts, samples).mean
        return Scores(mean=mean, spread=[max(0.0, 6 * (value - 0.3)) for value in mean])


def train(job, run=None, **options):
    run = run or Recorder()
    metrics = Rloo(run=run, **{**QUICK, **options}).optimize(job)
    return weights_digest(job.policy.lm), run, metrics


def looks(run):
    return [row for row in run.rows if "watched" in row]


def test_the_best_is_kept_and_training_ends_after_the_turn(job):
    watch = {"every": 1, "answers": 32, "patience": 2}
    digest, run, metrics = train(job(reward=Unsure()), steps=40, watch=watch)
    seen = looks(run)
    best = max(range(len(seen)), key=lambda i: seen[i]["watched"])
    assert 0 < best == len(seen) - 4, "three looks without a new best are the end"
    assert len(seen) < 40
    assert seen[-1]["watch_proxy"] > seen[best]["watch_proxy"], "by then only the proxy still rises"
    assert metrics["watched"].value == seen[best]["watched"]
    assert metrics["kl"].value == seen[best]["watch_kl"]
    assert f"best after {best} steps" in run.notes[-1]
    # The kept weights are those that training passed through.
    stopped = job(reward=Unsure())
    with pytest.raises(KeyboardInterrupt):
        train(stopped, Recorder(stop_at=best), steps=40, watch=watch)
    assert weights_digest(stopped.policy.lm) == digest


def test_looking_changes_nothing_where_the_best_is_the_last(job):
    class Sure(ShareOfVowels):
        def score(self, prompts, samples):
            return Scores(mean=super().score(prompts, samples).mean, spread=[0.0] * len(samples))

    plain, _, _ = train(job(), lr=3e-3)
    watched, run, metrics = train(job(reward=Sure()), lr=3e-3, watch={"every": 4, "answers": 64})
    assert [row["step"] for row in looks(run)] == [0, 4, 8, 12]
    assert looks(run)[-1]["watched"] == max(row["watched"] for row in looks(run))
    assert watched == plain
    assert metrics["watched"].value == pytest.approx(metrics["reward"].value)


@pytest.mark.parametrize("stop_at", [5, 9])
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, stop_at):
    options = {"watch": {"every": 2, "answers": 16, "patience": 1}, "steps": 20}
    whole, run, metrics = train(job(reward=Unsure()), **options)
    assert len(looks(run)) > 2
    with pytest.raises(KeyboardInterrupt):
        train(job(reward=Unsure()), Recorder(folder=tmp_path, stop_at=stop_at), **options)
    resumed, again, resumed_metrics = train(job(reward=Unsure()), Recorder(folder=tmp_path), **options)
    assert (resumed, resumed_metrics) == (whole, metrics)
    assert again.notes[-1] == run.notes[-1]


def test_the_divergence_is_used_up_while_somebody_watches(job):
    options = {"kl": {"coefficient": 0.0, "budget": 0.5}, "watch": {"every": 3, "answers": 16, "patience": 9}}
    _, run, metrics = train(job(reward=Unsure()), steps=30, **options)
    ended = next(row["step"] for row in run.rows if row.get("kl", 0) > 0.5)
    assert looks(run)[-1]["step"] == ended < 30
    assert metrics["watched"].value == max(row["watched"] for row in looks(run))


def test_a_rater_of_its_own(job):
    """`principles` scores headlines; here it is enough that it is asked, and that its word counts."""
    _, run, metrics = train(job(), steps=4, watch={"every": 2, "by": {"use": "principles"}})
    assert [row["step"] for row in looks(run)] == [0, 2, 4]
    assert metrics["watched"].value == max(row["watched"] for row in looks(run))
    assert looks(run)[0]["watched"] != looks(run)[0]["watch_proxy"]


def test_what_cannot_watch_is_refused(job):
    with pytest.raises(TrainingError, match="does not say how unsure"):
        train(job(), watch={})
    with pytest.raises(TrainingError, match="nobody has fitted it"):
        train(job(), watch={"by": {"use": "pairwise"}})
