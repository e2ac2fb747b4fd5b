"""Searching for the reward model's settings before it is fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.health import fit_temperature, held_out_ratings, margins, predictions, preference_health, sigmoid
from rlhf_core.metrics import Metric
from rlhf_core.pipeline.spec import Tune
from rlhf_core.pipeline.tuning import with_values
from rlhf_core.plugins import FitJob, RewardModel, Use
from rlhf_core.run import Checkpoints, Run
from rlhf_flows.search import Search, Trial, trials_of
from rlhf_flows.stages.artifacts_io import CHOSEN
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.learn import fit_job
from rlhf_flows.workspace import write_atomically

TRIALS, CURVE = "trials.json", "curve.json"
BEST_WHEN_HIGH = ("accuracy", "auc", "spearman")


def tune_reward(context: StageContext) -> Outcome:
    """Try settings of the reward model on the training feedback, judged on the validation prompts' feedback.

    Every trial is an MLflow run below this stage's. A killed search goes on with the trial that it was in. The first
    trial is the model as it is written and never given up, so the choice is never worse on the validation feedback.
    Raises TrainingError where no trial could be judged.
    """
    tune, written = Tune.model_validate(context.settings["tune"]), context.needed_use("reward")
    job = fit_job(context, written).job
    search = Search(tune.space, context.run.seed, maximize=tune.metric in BEST_WHEN_HIGH)
    folder = context.run.checkpoints.folder
    kept = Checkpoints(folder / "search" if folder is not None else None)
    if found := kept.latest():
        search.read((found[1] / TRIALS).read_text(encoding="utf-8"))
    while len(search.trials) < tune.trials:
        number, values = len(search.trials), search.propose()
        known = search.known(values)
        if known is not None:
            search.trials.append(replace(known, number=number))
        else:
            search.trials.append(_tried(context, tune, job, with_values(written, values), values, search))
        context.run.progress(number + 1, tune.trials, _words(search, tune.metric))
        kept.save(number + 1, lambda place: _write(place / TRIALS, search.to_json()))
    best = search.best
    if best is None:
        errors = sorted({trial.error for trial in search.trials})
        raise TrainingError(
            f"none of the {tune.trials} trials of `tune` could be judged by {tune.metric}: {'; '.join(errors)}",
            remedy="Collect more feedback, choose another `tune.metric`, or narrow `tune.space`.",
        )
    _write(context.draft / TRIALS, search.to_json())
    _write(context.draft / CHOSEN, json.dumps(best.values, indent=1) + "\n")
    scores = {"tuned": best.score, "as_written": search.trials[0].score}
    metrics = {
        f"{tune.metric}_validation_{name}": Metric(value=score) for name, score in scores.items() if score is not None
    }
    return Outcome(metrics, {"summary": _words(search, tune.metric)})


def trial_rows(tuning: Path, metric: str) -> list[dict[str, object]]:
    """The trials as rows of a table, the chosen one marked."""
    trials = trials_of((tuning / TRIALS).read_text(encoding="utf-8"))
    chosen = json.loads((tuning / CHOSEN).read_text(encoding="utf-8"))
    first = next(trial.number for trial in trials if trial.values == chosen and trial.score is not None)
    return [
        {
            "trial": trial.number,
            **(trial.values or {"settings": "as written"}),
            f"validation {metric}": trial.score,
            "chosen": "yes" if trial.number == first else "",
            "error": f"given up after epoch {len(trial.curve)}" if trial.pruned else trial.error,
        }
        for trial in trials
    ]


class Pruned(Exception):
    """A trial is given up."""


def _tried(
    context: StageContext, tune: Tune, job: FitJob, use: Use, values: dict[str, JsonValue], search: Search
) -> Trial:
    """One trial. An error of the fit is the trial's own; the search goes on."""
    number, name = len(search.trials), f"validation_{tune.metric}"
    run = context.run.attempt(f"trial-{number}", values)
    watched = _Watched(search, tune.metric, job, run) if tune.pruner is not None else None
    model: RewardModel = context.registry.create("reward_models", use, run)
    try:
        model.fit(job)
        score = judged(model, job, tune.metric)
    except Pruned:
        assert watched is not None
        curve = tuple(watched.curve)
        run.end({name: Metric(value=curve[-1]), "pruned_after_epoch": Metric(value=len(curve))})
        return Trial(number, values, curve=curve, pruned=True)
    except RlhfError as error:
        run.end({}, error)
        return Trial(number, values, None, error.what)
    run.end({name: Metric(value=score)})
    return Trial(number, values, score, curve=tuple(watched.curve) if watched is not None else ())


class _Watched:
    """Judges a trial after every epoch, and gives it up where the search says so."""

    def __init__(self, search: Search, metric: str, job: FitJob, run: Run) -> None:
        self.search, self.metric, self.job, self.run = search, metric, job, run
        folder = run.checkpoints.folder
        # Beside the fit's checkpoints, which a killed fit goes on from: epochs before them are not done again.
        self.path = folder.with_name(f"{folder.name}-{CURVE}") if folder is not None else None
        known = self.path is not None and self.path.exists()
        self.curve: list[float] = json.loads(self.path.read_text(encoding="utf-8")) if known and self.path else []
        run.on_epoch = self.after

    def after(self, epoch: int, model: RewardModel) -> None:
        """Raises Pruned."""
        score = judged(model, self.job, self.metric, calibrated=False)
        # An epoch is done a second time where the kill came before its checkpoint.
        self.curve = [*self.curve[: epoch - 1], score]
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.curve))
        self.run.log({f"epoch_{self.metric}": score}, epoch)
        if self.search.hopeless(self.curve):
            raise Pruned


def judged(model: RewardModel, job: FitJob, metric: str, *, calibrated: bool = True) -> float:
    """The metric on `job.validation`; of a model that is not `calibrated` yet, at the temperature that fits it best.

    Raises TrainingError where the feedback does not define it.
    """
    pairs = job.validation.pairs()
    found = held_out_ratings(model, job.validation) if metric == "spearman" else {}
    if metric != "spearman" and pairs:
        gaps = margins(model, pairs)
        seen = predictions(pairs, sigmoid(gaps))
        if not calibrated:
            seen = replace(seen, predicted=sigmoid(gaps / fit_temperature(gaps, seen.stated, seen.weight)))
        found = preference_health(seen)
    if f"reward_{metric}" not in found:
        wanted = "ratings" if metric == "spearman" else "pairs with a winner"
        raise TrainingError(f"the validation prompts' feedback holds too few {wanted}")
    return found[f"reward_{metric}"].value


def _words(search: Search, metric: str) -> str:
    best = search.best
    if best is None:
        return f"{len(search.trials)} trials failed"
    chosen = ", ".join(f"{name} {_short(value)}" for name, value in best.values.items()) or "as written"
    return f"{chosen}: validation {metric} {best.score:.4g} ({len(search.trials)} trials)"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
