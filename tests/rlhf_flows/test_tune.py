"""The search for settings: what it proposes, what it keeps, what it chooses."""

import json
import random
import statistics

import pytest
from test_loop import printed, rlhf

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.pipeline import Span, Tune
from rlhf_core.plugins import FitJob, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.run import Checkpoints, Run
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.graph import Node, Role
from rlhf_flows.search import Search, Trial
from rlhf_flows.stages import tune as stage
from rlhf_flows.stages.artifacts_io import remember_use, remembered_use, tuned
from rlhf_flows.stages.context import StageContext

SPACE = {"x": Span(low=-5.0, high=5.0), "n": Span(low=1, high=9), "word": Span(among=(["a"], ["b", 1]))}


def searched(trials, seed=0, space=SPACE, stop_after=None, text=None):
    """Minimise (x - 2)^2 + n, with [`b`, 1] 3 better; killed and read again after `stop_after`."""
    search = Search(space, seed, maximize=False)
    while len(search.trials) < trials:
        values = search.propose()
        score = (values.get("x", 0) - 2) ** 2 + values.get("n", 9) - 3 * (values.get("word") == ["b", 1])
        search.trials.append(Trial(len(search.trials), values, score))
        if len(search.trials) == stop_after:
            text = search.to_json()
            search = Search(space, seed, maximize=False)
            search.read(text)
    return search


def test_finds_what_is_better_than_chance():
    search = searched(40)
    assert search.trials[0].values == {}
    assert all(isinstance(trial.values["n"], int) for trial in search.trials[1:])
    assert search.best.score == min(trial.score for trial in search.trials)
    rng = random.Random(0)
    by_chance = [
        min((rng.uniform(-5, 5) - 2) ** 2 + rng.randint(1, 9) - 3 * rng.randint(0, 1) for _ in range(39))
        for _ in range(50)
    ]
    assert search.best.score < sorted(by_chance)[25]
    assert search.best.values["word"] == ["b", 1]


def test_the_same_search_whether_or_not_it_was_interrupted():
    whole = searched(14)
    assert searched(14, stop_after=6).trials == whole.trials
    assert searched(14, seed=1).trials != whole.trials


def test_failed_trials_and_equal_settings():
    search = Search({"x": Span(among=(1, 2))}, 0, maximize=True)
    search.trials = [Trial(0, {}, 0.5), Trial(1, {"x": 1}, None, "diverged"), Trial(2, {"x": 2}, 0.5)]
    assert search.propose() in ({"x": 1}, {"x": 2})
    assert search.best.number == 0
    assert search.known({"x": 1}).error == "diverged"
    assert search.known({"x": 3}) is None
    assert Search(SPACE, 0, maximize=False, trials=[Trial(0, {}, None, "no")]).best is None


def test_a_curve_is_hopeless_below_the_median_of_those_that_went_to_their_end():
    curves = [(0.5, 0.4), (0.6, 0.5), (0.7, 0.6), (0.8, 0.7), (0.9, 0.8)]
    trials = [Trial(i, {"x": i}, curve[-1], curve=curve) for i, curve in enumerate(curves)]
    search = Search(SPACE, 0, maximize=False, trials=trials)
    # The medians are 0.7 after the first epoch and 0.6 after the second.
    assert not search.hopeless([0.69])
    assert search.hopeless([0.71])
    assert search.hopeless([0.69, 0.61])
    assert not search.hopeless([0.69, 0.59])
    assert not search.hopeless([0.55, 0.99]), "it has been good once, and the best epoch is kept"
    assert not Search(SPACE, 0, maximize=False, trials=trials[:4]).hopeless([9.0]), "four are too few"
    failed = [*trials[:4], Trial(4, {"x": 4}, None, "diverged"), Trial(5, {"x": 5}, curve=(9.0,), pruned=True)]
    assert not Search(SPACE, 0, maximize=False, trials=failed).hopeless([9.0]), "still four"
    upwards = Search(SPACE, 0, maximize=True, trials=trials)
    assert upwards.hopeless([0.69]) and not upwards.hopeless([0.71])


def test_trials_that_were_given_up_are_remembered_as_bad():
    search = Search({"x": Span(low=0.0, high=1.0)}, 0, maximize=False)
    search.trials = [Trial(i, {"x": i / 40}, i / 40, curve=(i / 40,)) for i in range(20)]
    search.trials += [Trial(20 + i, {"x": 0.5 + i / 40}, curve=(9.0,), pruned=True) for i in range(20)]
    again = Search(search.space, 0, maximize=False)
    again.read(search.to_json())
    assert again.trials == search.trials
    assert search.best.number == 0
    assert again.propose() == search.propose()
    assert search.propose()["x"] < 0.5


# The stage

WORDS = ["town", "council", "bridge", "school", "river", "vote", "plan", "storm"]


def answers(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        prompt = Prompt(text=f"Headline {seed} {i}")
        texts = [" ".join(rng.choices(WORDS, k=4)), " ".join([*rng.choices(WORDS, k=3), "good"])]
        order = rng.sample([0, 1], 2)
        samples = tuple(Sample(prompt_id=prompt.id, text=texts[j]) for j in order)
        question = Question(prompt=prompt, samples=samples)
        yield Answer(question=question, feedback=question.compare(order, annotator="a"))


JOB = FitJob(FeedbackSet.of(answers(80, 1)), FeedbackSet.of(answers(40, 2)))
TUNE = Tune(space={"lr": Span(low=1e-6, high=1e-1, log=True), "hidden": Span(among=(0, 16))}, trials=5)


class Attempts(Run):
    """Remembers the attempts."""

    def __init__(self, seed=0, checkpoints=None):
        super().__init__(seed, checkpoints)
        self.begun = []

    def attempt(self, name, settings):
        self.begun.append((name, dict(settings)))
        return super().attempt(name, settings)


def context(tmp_path, run, tune=TUNE, use=None):
    reward = use or Use(use="feed_forward", epochs=2, lr=1e-6, rarest=1)
    node = Node(
        id="1/tune", name="tune", stage="tune", body="rlhf_flows.stages.tune:tune_reward", title="tune", gives="tuning",
        pipeline="p", round=1, plugins=(Role(role="reward", kind="reward_models", use=reward),),
        settings={"tune": tune.model_dump(mode="json"), "annotators": 0.0},
    )  # fmt: skip
    draft = tmp_path / "draft"
    draft.mkdir(exist_ok=True)
    return StageContext(node, {}, Registry(), None, run, draft, "")


@pytest.fixture(autouse=True)
def feedback(monkeypatch):
    monkeypatch.setattr(stage, "fit_job", lambda context, use: stage_job())


def stage_job():
    from rlhf_flows.stages.learn import Learning

    return Learning(JOB, FeedbackSet(), set())


def test_the_stage_chooses_and_says_so(tmp_path):
    run = Attempts(3)
    here = context(tmp_path, run)
    outcome = stage.tune_reward(here)
    trials = json.loads((here.draft / "trials.json").read_text())
    assert [trial["number"] for trial in trials] == list(range(5))
    assert (trials[0]["values"], run.begun[0]) == ({}, ("trial-0", {}))
    best = min(trials, key=lambda trial: trial["score"])
    assert best["number"] > 0, "the rate as written learns nothing"
    chosen = tuned(here.needed_use("reward"), here.draft)
    assert chosen.options == here.needed_use("reward").options | best["values"]
    assert outcome.metrics["log_loss_validation_tuned"].value == best["score"]
    assert outcome.metrics["log_loss_validation_as_written"].value == trials[0]["score"]
    rows = stage.trial_rows(here.draft, "log_loss")
    assert [row["trial"] for row in rows if row["chosen"]] == [best["number"]]
    # What the trial was judged by is what a fit with these settings and this seed gives.
    model = Registry().create("reward_models", chosen, Run(3))
    model.fit(JOB)
    assert stage.judged(model, JOB, "log_loss") == best["score"]


class Killed(Exception):
    """The process ends here."""


def test_killed_and_resumed_loses_no_trial(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = context(tmp_path / "whole", Run(3, Checkpoints(tmp_path / "a")))
    stage.tune_reward(whole)

    judged, calls = stage.judged, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise Killed
        return judged(*arguments)

    monkeypatch.setattr(stage, "judged", dying)
    (tmp_path / "again").mkdir()
    with pytest.raises(Killed):
        stage.tune_reward(context(tmp_path / "again", Attempts(3, Checkpoints(tmp_path / "b"))))
    assert (tmp_path / "b" / "trial-2").is_dir(), "the trial's own checkpoint survives"
    run = Attempts(3, Checkpoints(tmp_path / "b"))
    resumed = context(tmp_path / "again", run)
    stage.tune_reward(resumed)
    assert [name for name, _ in run.begun] == ["trial-2", "trial-3", "trial-4"]
    for name in ("trials.json", "chosen.json"):
        assert (resumed.draft / name).read_text() == (whole.draft / name).read_text()


PRUNED = Tune(
    space={"lr": Span(low=1e-6, high=1e-1, log=True)}, trials=14, metric="log_loss", pruner="median"
)  # fmt: skip
PATIENT = Use(use="feed_forward", epochs=4, patience=9, lr=1e-2, rarest=1, hidden=0)


def test_bad_trials_are_given_up(tmp_path):
    run = Attempts(3, Checkpoints(tmp_path / "a"))
    here = context(tmp_path, run, PRUNED, PATIENT)
    stage.tune_reward(here)
    trials = json.loads((here.draft / "trials.json").read_text())
    given_up = [trial for trial in trials if trial["pruned"]]
    assert given_up and not any(trial["pruned"] for trial in trials[:5])
    assert all(trial["score"] is None and 0 < len(trial["curve"]) < 4 for trial in given_up)
    whole = [trial for trial in trials if not trial["pruned"]]
    assert all(len(trial["curve"]) == 3 and trial["score"] is not None for trial in whole)
    for trial in given_up:
        epoch = len(trial["curve"])
        before = [other["curve"][epoch - 1] for other in whole if other["number"] < trial["number"]]
        assert min(trial["curve"]) > statistics.median(before)
    chosen = json.loads((here.draft / "chosen.json").read_text())
    assert chosen == min(whole, key=lambda trial: trial["score"])["values"]
    rows = stage.trial_rows(here.draft, "log_loss")
    assert rows[given_up[0]["number"]]["error"] == f"given up after epoch {len(given_up[0]['curve'])}"


def test_a_search_that_gives_up_trials_is_the_same_when_it_is_killed(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = context(tmp_path / "whole", Run(3, Checkpoints(tmp_path / "a")), PRUNED, PATIENT)
    stage.tune_reward(whole)
    judged, calls = stage.judged, []

    def dying(*arguments, **options):
        calls.append(arguments)
        if len(calls) % 7 == 0:
            raise Killed
        return judged(*arguments, **options)

    monkeypatch.setattr(stage, "judged", dying)
    (tmp_path / "again").mkdir()
    kills = 0
    while True:
        resumed = context(tmp_path / "again", Run(3, Checkpoints(tmp_path / "b")), PRUNED, PATIENT)
        try:
            stage.tune_reward(resumed)
            break
        except Killed:
            kills += 1
    assert kills > 3
    for name in ("trials.json", "chosen.json"):
        assert (resumed.draft / name).read_text() == (whole.draft / name).read_text()


@pytest.mark.parametrize(
    "use",
    [
        Use(use="ensemble", copies=2, members=[{"use": "feed_forward", "epochs": 3, "patience": 9, "rarest": 1}]),
        Use(use="feed_forward", epochs=3, patience=9, rarest=1, hidden=4),
    ],
)
def test_an_epoch_is_judged_at_its_best_temperature(tmp_path, use):
    """The same model is judged the same, whether or not its own temperature is fitted yet."""
    seen = []

    run = Run(3)
    run.on_epoch = lambda epoch, model: seen.append((epoch, stage.judged(model, JOB, "log_loss", calibrated=False)))
    model = Registry().create("reward_models", use, run)
    model.fit(JOB)
    assert [epoch for epoch, _ in seen] == [1, 2], "of an ensemble the first member alone"
    calibrated = stage.judged(model, JOB, "log_loss")
    assert stage.judged(model, JOB, "log_loss", calibrated=False) == pytest.approx(calibrated, abs=1e-6)


def test_no_trial_can_be_judged(tmp_path):
    with pytest.raises(TrainingError, match=r"none of the 2 trials of `tune` could be judged by spearman.*few rat"):
        stage.tune_reward(context(tmp_path, Run(), TUNE.model_copy(update={"trials": 2, "metric": "spearman"})))


def test_a_trial_that_fails_is_not_chosen(tmp_path, monkeypatch):
    judged = stage.judged

    def picky(model, job, metric):
        if model.config.hidden:
            raise TrainingError("the loss is not finite")
        return judged(model, job, metric)

    monkeypatch.setattr(stage, "judged", picky)
    here = context(tmp_path, Run(3), TUNE.model_copy(update={"trials": 6}))
    stage.tune_reward(here)
    trials = json.loads((here.draft / "trials.json").read_text())
    failed = [trial for trial in trials if trial["error"]]
    assert trials[0] in failed, "64 hidden units as written"
    assert 0 < len(failed) < 6 and all(trial["score"] is None for trial in failed)
    assert json.loads((here.draft / "chosen.json").read_text())["hidden"] == 0


def test_a_saved_model_remembers_how_it_was_configured(tmp_path):
    written, chosen = Use(use="feed_forward"), Use(use="feed_forward", hidden=0)
    assert remembered_use(tmp_path, written) == written
    remember_use(tmp_path, chosen)
    assert remembered_use(tmp_path, written) == chosen


def test_a_campaign_that_tunes(tmp_path):
    """Through the command: cached, in MLflow, in the report, and the later stages read the tuned model."""
    text = """
pipeline: tuned
seed: 3
rounds: 2
data: [{use: newsroom, prompts: 120}]
policy: {use: causal_lm, model: starter, max_prompt_tokens: 48, max_new_tokens: 8,
         starter: {layers: 1, width: 32, heads: 2}}
ask:
  questions: 60
  samples: 2
  annotators: [{use: simulated_panel, raters: 3}]
reward: {use: feed_forward, epochs: 2, rarest: 1}
tune: {trials: 3, space: {hidden: {among: [8, 24]}, lr: {low: 1e-3, high: 1e-1, log: true}}}
gold: {use: principles}
optimize: {use: best_of_n}
test: {prompts: 4, samples: 1}
evaluate: [{use: win_rate, judge: gold}]
gate: {use: better}
"""
    path = tmp_path / "tuned.yaml"
    path.write_text(text)
    workspace = tmp_path / "w"
    summary = printed(rlhf("run", path, "--json", workspace=workspace))
    assert [done["round"] for done in summary["rounds"]] == [0, 1, 2]
    planned = printed(rlhf("run", path, "--dry-run", "--json", workspace=workspace))
    assert [(row["round"], row["state"]) for row in planned if row["stage"] == "tune"] == [(1, "cached")]
    assert {row["state"] for row in planned} == {"cached"}
    tracker = Tracker.open(workspace, "tuned")
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.`rlhf.level` = 'attempt'")
    assert len(runs) >= 2 and all("validation_log_loss" in run.data.metrics for run in runs)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert any("lr" in run.data.params for run in runs)
    (page,) = (workspace / "reports").glob("*/round-1.html")
    assert "reward_model_trials" in page.read_text()
    found = list((workspace / "artifacts").rglob("trials.json"))
    assert len(found) == 1, "the second round keeps what the first one chose"
    configured = [json.loads(path.read_text()) for path in (workspace / "artifacts").glob("*/*/reward/configured.json")]
    assert len(configured) == 2
    assert configured[0] == configured[1]
