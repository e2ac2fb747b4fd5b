"""Several reward models as one that knows how unsure it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob, PluginConfig, Policy, RewardModel, Scores, Use
from rlhf_core.plugins.composite import CompositeRewardModel
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample
from rlhf_core.run import Checkpoints, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhf_core.feedback.dataset import FeedbackSet, Pair

    Floats = NDArray[np.float64]

MEMBERS = "members.json"


class Ensemble(CompositeRewardModel):
    """The mean, the minimum or the uncertainty-weighted mean of several reward models, with their spread.

    Where the members disagree, none of them knows; a policy that is optimised on the mean alone finds just those
    answers (Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization"). `spread` is the standard
    deviation of the members' scores, `members` the scores themselves, which selectors read.

    Where all members learn they are put on one scale: each has mean 0 and standard deviation 1 on training samples when
    they are combined, whatever a few held-out pairs said of its own calibration, so that none drowns the others. The
    result gets one temperature, fitted on the held-out pairs. Beside members that learn nothing all keep their units,
    and so do those whose zero means something (`cost`).
    """

    learns_from = frozenset({Comparison, Ranking, Rating})

    class Config(PluginConfig):
        """The members, and what is made of their scores."""

        members: Annotated[tuple[Use, ...], Use.of("reward_models")] = Field(min_length=1)
        """The reward models; any plugins, also ones that learn nothing."""
        copies: int = Field(1, ge=1)
        """How often each is fitted, with a seed of its own."""
        bootstrap: bool = True
        """Fit every copy on a sample of the training prompts, drawn with replacement as many as there are, so that
        copies differ by what they saw and not only by the order they saw it in. Without copies everything is used."""
        combine: Literal["mean", "min", "uncertainty_weighted"] = "mean"
        """`mean`; `min`: the most sceptical member's score (worst-case optimisation); `uncertainty_weighted`: the mean
        minus `coefficient` times the members' variance, in units of a member's standard deviation."""
        coefficient: float = Field(1.0, ge=0)
        """Of `uncertainty_weighted`."""

    def set_up(self) -> None:
        """The members, unfitted."""
        from rlhf_core.plugins.registry import Registry

        registry = Registry()
        self.models: list[RewardModel] = []
        self.bootstrapped: list[int] = []
        self.common = 1.0
        """What combined scores are multiplied by."""
        for number, (use, copy) in enumerate(_members(self.config)):
            model: RewardModel = registry.create("reward_models", use, MemberRun(self.run, number))
            self.models.append(model)
            self.bootstrapped.append(copy if self.config.bootstrap and self.config.copies > 1 else -1)
        self.offsets, self.units = [0.0] * len(self.models), [1.0] * len(self.models)

    @classmethod
    def learners(cls, config: Any) -> tuple[int, ...]:
        """Numbers of the members that learn."""
        from rlhf_core.plugins.registry import Registry

        registry = Registry()
        return tuple(
            number
            for number, (use, _) in enumerate(_members(config))
            if frozenset(registry.load("reward_models", use.use).learns_from)  # type: ignore[attr-defined]
        )

    def part(self, number: int) -> RewardModel:
        """A member."""
        return self.models[number]

    def fit_part(self, number: int, job: FitJob) -> dict[str, Metric]:
        """Fit a member on its own resample of the feedback; its own metrics."""
        previous = job.previous.models if isinstance(job.previous, Ensemble) else []
        last = previous[number] if number < len(previous) else None
        train = job.train if self.bootstrapped[number] < 0 else resampled(job.train, self.run.seed, number)
        return self.models[number].fit(FitJob(train=train, validation=job.validation, previous=last, base=job.base))

    def join(self, job: FitJob) -> dict[str, Metric]:
        """Put the members on one scale. Metrics are those of the ensemble on held-out pairs, each member's accuracy,
        and the mean spread.
        """
        import numpy as np

        from rlhf_core import health

        learners = self.learners(self.config)
        if not learners:
            self.run.note("no member of the ensemble learns anything: the feedback only measures it")
        found: dict[str, Metric] = {}
        pairs = job.validation.pairs()
        self.offsets, self.units, self.common = [0.0] * len(self.models), [1.0] * len(self.models), 1.0
        for number, model in enumerate(self.models if pairs else ()):
            seen = health.predict(model, pairs)
            accuracy = health.accuracy(seen.predicted, seen.stated, seen.weight)
            if not np.isnan(accuracy):
                found[f"reward_accuracy_member_{number}"] = Metric(value=accuracy, n=len(set(seen.prompts)))
        all_learn = len(learners) == len(self.models)
        if len(self.models) > 1 and all_learn and all(getattr(model, "centred", True) for model in self.models):
            self._scale(job, pairs)
        if pairs:
            trained = job.train.pairs()
            longer = health.longer_wins(health.predictions(trained, [pair.probability for pair in trained]))
            seen = health.predict(self, pairs)
            found |= health.preference_health(seen, longer_is_better=longer, seed=self.run.seed)
            scores = self.score([pair.prompt for pair in pairs], [pair.first for pair in pairs])
            assert scores.spread is not None
            found["reward_spread"] = Metric(value=float(np.mean(scores.spread)), n=len(pairs))
        return found

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """The members' scores as one, with their spread."""
        import numpy as np

        table = (self._raw(prompts, samples) - np.array(self.offsets)[:, None]) / np.array(self.units)[:, None]
        combined = self.common * combine(table, self.config.combine, self.config.coefficient)
        table = self.common * table
        return Scores(combined.tolist(), table.std(axis=0).tolist(), members=table.tolist())

    def _raw(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Floats:
        """[M, N]: the members' own scores."""
        import numpy as np

        rows = [model.score(prompts, samples).mean for model in self.models]
        return np.array(rows, dtype=float).reshape(len(self.models), len(samples))

    def _scale(self, job: FitJob, pairs: Sequence[Pair]) -> None:
        """Put the members on one scale, and fit the temperature of what they say together on held-out `pairs`."""
        import numpy as np

        from rlhf_core.health import fit_temperature
        from rlhf_plugins.reward_models._learning import CENTRE_ON, FEWEST_VALIDATION

        questions = [answer.question for answer in islice(job.train.answers(), CENTRE_ON)]
        samples = [sample for question in questions for sample in question.samples]
        table = self._raw([question.prompt for question in questions for _ in question.samples], samples)
        self.offsets = table.mean(axis=1).tolist()
        self.units = [float(unit) or 1.0 for unit in table.std(axis=1)]
        # Until something better is known, as sure as the members are on average.
        self.common = float(np.mean(self.units))
        decided = [pair for pair in pairs if pair.probability != 0.5]
        if len(decided) >= FEWEST_VALIDATION:
            prompts = [pair.prompt for pair in decided for _ in range(2)]
            scores = np.array(self.score(prompts, [s for pair in decided for s in (pair.first, pair.second)]).mean)
            stated, weight = (np.array([getattr(pair, name) for pair in decided]) for name in ("probability", "weight"))
            self.common /= fit_temperature(scores[0::2] - scores[1::2], stated, weight)

    def share_base(self, policy: Policy) -> None:
        """Each member that can."""
        for model in self.models:
            model.share_base(policy)

    def save(self, folder: Path) -> None:
        """Each member in a folder of its own."""
        for number, model in enumerate(self.models):
            place = folder / f"member-{number}"
            place.mkdir()
            model.save(place)
        scale = {"offsets": self.offsets, "units": self.units, "common": self.common}
        (folder / MEMBERS).write_text(json.dumps({"members": len(self.models), **scale}) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Raises RlhfError where another number of members was saved."""
        description = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))
        saved = description["members"]
        if saved != len(self.models):
            raise RlhfError(
                f"the saved ensemble has {saved} members, the pipeline's has {len(self.models)}",
                where=str(folder),
                remedy="Load it with the configuration that it was fitted with.",
            )
        self.offsets, self.units, self.common = (description[name] for name in ("offsets", "units", "common"))
        for number, model in enumerate(self.models):
            model.load(folder / f"member-{number}")


def _members(config: Any) -> list[tuple[Use, int]]:
    """Each member's plugin and the number of the copy that it is."""
    return [(use, copy) for use in config.members for copy in range(config.copies)]


def combine(table: Floats, how: str, coefficient: float) -> Floats:
    """[M, N] scores of M members as [N]: their mean, minimum, or mean - coefficient * variance."""
    mean: Floats = table.min(axis=0) if how == "min" else table.mean(axis=0)
    return mean - coefficient * table.var(axis=0) if how == "uncertainty_weighted" else mean


def resampled(feedback: FeedbackSet, seed: int, number: int) -> FeedbackSet:
    """The answers on as many prompts as there are, drawn with replacement (Breiman 1996): one that is drawn twice
    counts once, which leaves about 63 % of the prompts. Raises TrainingError where there is no feedback.
    """
    from rlhf_core.feedback.dataset import FeedbackSet

    prompts = sorted({answer.question.prompt.content for answer in feedback.answers()})
    if len(prompts) < 2:
        # Posts that answer one prompt all alike: draw answers instead.
        ids = sorted(answer.feedback.id for answer in feedback.answers())
        chosen = _drawn(ids, seed, number)
        return FeedbackSet(answer for answer in feedback.answers() if answer.feedback.id in chosen)
    chosen = _drawn(prompts, seed, number)
    return FeedbackSet(answer for answer in feedback.answers() if answer.question.prompt.content in chosen)


def _drawn(names: Sequence[str], seed: int, number: int) -> set[str]:
    if not names:
        raise TrainingError("no feedback is on training prompts.", remedy="Collect some first.")
    import numpy as np

    rng = np.random.default_rng([seed, number])
    return {names[i] for i in rng.integers(0, len(names), len(names))}


class MemberRun(Run):
    """The run of one member: a seed and checkpoints of its own, curves and notes under its number."""

    def __init__(self, parent: Run, number: int) -> None:
        digest = hashlib.sha256(f"{parent.seed}/member {number}".encode()).digest()
        folder = parent.checkpoints.folder
        super().__init__(
            int.from_bytes(digest[:4], "big") >> 1,
            Checkpoints(folder / f"member-{number}" if folder is not None else None),
        )
        self.parent, self.number = parent, number
        if number == 0:
            # Whoever follows the fit follows its first member: the ensemble scores nothing before the last is fitted.
            self.on_epoch = lambda epoch, model: parent.on_epoch(epoch, model)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Under the member's number."""
        self.parent.log({f"member_{self.number}_{name}": value for name, value in metrics.items()}, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Of this member alone."""
        self.parent.progress(done, total, f"member {self.number}: {note}")

    def note(self, text: str) -> None:
        """Under the member's number."""
        self.parent.note(f"member {self.number}: {text}")
