"""Small networks that learn from preferences what the steps of an episode are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import CONTROL, FitJob, PluginConfig, RewardModel, Scores
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample
from rlhf_plugins.control.environments import Spaces, environment_of

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._objectives import Pairs
    from rlhf_plugins.reward_models._steps import SegmentValuer, StepRewards

WEIGHTS, DESCRIPTION = "segment_mlp.safetensors", "segment_mlp.json"
FEWEST_VALIDATION = 20
"""Held-out preferences below which early stopping and calibration would follow chance."""


class SegmentMlp(RewardModel):
    """A segment is worth the sum of its steps' rewards r(observation, action) (Christiano et al. 2017, section 2.2.3).

    P(first is better) = sigma(sum of r over the first - sum of r over the second). A segment that ends sooner, because
    its episode did, has fewer terms: what comes after the end is worth 0, which also fixes where 0 lies. An ensemble is
    trained on resampled feedback, and its spread says how unsure it is. Nothing is centred.
    """

    modality = CONTROL
    learns_from = frozenset({Comparison, Ranking, Rating})

    class Config(PluginConfig):
        """Size, and how it is trained."""

        hidden: tuple[int, ...] = (64, 64)
        """Width of each hidden layer."""
        members: int = Field(3, ge=1)
        """Networks in the ensemble; each one but a single one is trained on feedback drawn with replacement."""
        loss: Literal["bradley_terry", "mse"] = "bradley_terry"
        """`bradley_terry`: the likelihood of comparisons, and of those that rankings and ratings hold. `mse`: squared
        error between the sum of a segment and its rating, scaled to [0, 1], so that the lowest rating means
        worth nothing; learns from ratings alone."""
        lapse: float = Field(0.1, ge=0, lt=1)
        """Share of the answers that raters give without looking, so that half of these are wrong (Christiano et al.
        2017 suppose 0.1). Comparisons only."""
        epochs: int = Field(15, ge=1)
        """Passes over the feedback, at most."""
        batch: int = Field(64, ge=1)
        """Pairs or ratings in one step, times `members`."""
        lr: float = Field(1e-3, gt=0)
        """Learning rate of AdamW at its height."""
        weight_decay: float = Field(1.0, ge=0)
        """Of AdamW, on matrices only. Much, since a few hundred noisy answers teach a network their mistakes too."""
        patience: int = Field(3, ge=0)
        """Epochs in a row that may pass without a better loss on held-out prompts."""
        tie_below: float = Field(0.0, ge=0, le=1)
        """Two ratings whose difference is at most this share of their scale are a tie."""

    def set_up(self) -> None:
        """Nothing learnt before `fit` or `load`."""
        self.rewards: StepRewards | None = None
        self.spaces: Spaces
        self.temperature = 1.0

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Learn anew from all of `job.train`; `reward_loss` is measured on `job.validation`.

        In nats a pair, or in squared units of the rating's scale. Raises TrainingError where there is nothing to learn
        from and where the loss isn't finite.
        """
        from rlhf_core.health import fit_temperature, log_loss, sigmoid
        from rlhf_plugins.reward_models._fitting import Fitting

        regress = self.config.loss == "mse"
        train, held_out = self._lessons(job.train), self._lessons(job.validation)
        if not any(regress or stated != 0.5 for stated in train.stated):
            wanted = "ratings" if regress else "pairs with a preference"
            raise TrainingError(
                f"no preference to learn from: {len(job.train)} answers on training prompts hold no {wanted}",
                remedy="Ask more questions (`ask.questions`), or annotators who give that kind of feedback.",
            )
        self.spaces = Spaces.of(environment_of(train.prompts))
        valuer, valid = self._start(train), self._valuer(held_out)
        enough = sum(regress or stated != 0.5 for stated in held_out.stated) >= FEWEST_VALIDATION
        if not enough:
            self.run.note(
                f"{len(held_out.stated)} held-out answers are too few: no early stopping, no calibration"
                f" (wanted: {FEWEST_VALIDATION} that aren't ties)"
            )

        def validation_loss() -> float:
            margins, stated, weight = self._margins(valid, held_out)
            if regress:
                return float((weight * (margins - stated) ** 2).sum() / weight.sum())
            lapse = self.config.lapse
            return log_loss((1 - lapse) * sigmoid(margins) + lapse / 2, stated, weight)

        options = self.config.model_dump(include={"epochs", "lr", "weight_decay", "patience"})
        state = Fitting(
            valuer,
            self._objective(train),
            self.run,
            batch=self.config.batch * self.config.members,
            validate=validation_loss if enough else None,
            after_epoch=lambda epoch: self.run.on_epoch(epoch, self),
            **options,
        ).fit()
        if enough and not regress:
            self.temperature = fit_temperature(*self._margins(valid, held_out))
        metrics = {
            "reward_train_pairs": Metric(value=len(train.stated)),
            "reward_validation_pairs": Metric(value=len(held_out.stated)),
            "reward_best_epoch": Metric(value=state.best_epoch),
            "reward_temperature": Metric(value=self.temperature),
        }
        if held_out.stated:
            metrics["reward_loss"] = Metric(value=validation_loss(), n=len(held_out.stated))
        return metrics

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Sums over the steps: the ensemble's mean and standard deviation."""
        from rlhf_plugins.reward_models._steps import Clips, SegmentValuer

        if self.rewards is None:
            raise RlhfError(
                "the reward model `segment_mlp` has learnt nothing yet", remedy="Fit it, or load a saved one."
            )
        if not samples:
            return Scores([])
        sums = SegmentValuer(self.rewards, Clips.of(samples, self.spaces)).sums() / self.temperature
        spread = sums.std(axis=0).tolist() if len(sums) > 1 else None
        return Scores(sums.mean(axis=0).tolist(), spread, members=sums.tolist())

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the rest as JSON."""
        from safetensors.torch import save_file

        if self.rewards is None:
            raise RlhfError("the reward model `segment_mlp` has learnt nothing yet", remedy="Fit it before saving it.")
        save_file(self.rewards.state_dict(), folder / WEIGHTS)
        description = {"spaces": self.spaces.model_dump(mode="json"), "temperature": self.temperature}
        (folder / DESCRIPTION).write_text(json.dumps(description) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Ready to score."""
        from safetensors.torch import load_file

        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self.spaces = Spaces.model_validate(description["spaces"])
        self.temperature = description["temperature"]
        self.rewards = self._network()
        self.rewards.load_state_dict(load_file(folder / WEIGHTS))

    def _network(self) -> StepRewards:
        from rlhf_plugins.reward_models._steps import StepRewards

        features = self.spaces.observation + self.spaces.actions
        return StepRewards(features, self.config.hidden, self.config.members)

    def _start(self, train: Lessons) -> SegmentValuer:
        """Untrained networks whose weights follow from the seed, standardised on the training steps."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.seed)
            self.rewards = self._network()
        valuer = self._valuer(train)
        self.rewards.standardise_on(valuer.clips.features)
        return valuer

    def _valuer(self, lessons: Lessons) -> SegmentValuer:
        from rlhf_plugins.reward_models._steps import Clips, SegmentValuer

        assert self.rewards is not None
        return SegmentValuer(self.rewards, Clips.of(lessons.samples, self.spaces))

    def _lessons(self, feedback: FeedbackSet) -> Lessons:
        if self.config.loss == "mse":
            ratings = feedback.ratings()
            return Lessons(
                [rated.prompt for rated in ratings],
                [rated.sample for rated in ratings],
                [(i, None) for i in range(len(ratings))],
                [rated.score for rated in ratings],
                [float(rated.n) for rated in ratings],
            )
        pairs = feedback.pairs(tie_below=self.config.tie_below)
        return Lessons(
            [pair.prompt for pair in pairs],
            [sample for pair in pairs for sample in (pair.first, pair.second)],
            [(2 * i, 2 * i + 1) for i in range(len(pairs))],
            [pair.probability for pair in pairs],
            [pair.weight for pair in pairs],
        )

    def _objective(self, lessons: Lessons) -> Pairs:
        """Every member's rows; of an ensemble each member counts a lesson as often as it is drawn for it."""
        import numpy as np

        from rlhf_plugins.reward_models._steps import HastyPairs, RatedSegments, Row

        members, count = self.config.members, len(lessons.stated)
        rng = np.random.default_rng([self.run.seed, members])
        rows, drawn_for = [], []
        for member in range(members):
            times = rng.multinomial(count, [1 / count] * count) if members > 1 else np.ones(count)
            for i in np.flatnonzero(times):
                first, second = lessons.clips[i]
                steps = sum(_steps(lessons.samples[clip]) for clip in (first, second) if clip is not None)
                rows.append(Row(member, first, second, steps))
                drawn_for.append((i, times[i]))
        stated = np.array([lessons.stated[i] for i, _ in drawn_for])
        weight = np.array([lessons.weight[i] * times for i, times in drawn_for])
        if self.config.loss == "mse":
            return RatedSegments(rows, stated, weight)
        return HastyPairs(rows, stated, weight, lapse=self.config.lapse)

    def _margins(self, valuer: SegmentValuer, lessons: Lessons) -> tuple[Any, Any, Any]:
        """The ensemble's mean of first minus second, what was stated, and the weights; each [N]."""
        import numpy as np

        sums = valuer.sums().mean(axis=0)
        margins = [sums[first] - (0.0 if second is None else sums[second]) for first, second in lessons.clips]
        return np.array(margins), np.array(lessons.stated), np.array(lessons.weight)


class Lessons(NamedTuple):
    """N things to learn from: pairs of segments, or single segments with a rating."""

    prompts: list[Prompt]
    samples: list[Sample]
    clips: list[tuple[int, int | None]]
    """Numbers of the samples that each is about."""
    stated: list[float]
    """P(first is better), or the rating in [0, 1]."""
    weight: list[float]
    """Number of answers behind it."""


def _steps(sample: Sample) -> int:
    return 0 if sample.trajectory is None else len(sample.trajectory.actions)
