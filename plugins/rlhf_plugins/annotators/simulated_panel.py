"""Annotator `simulated_panel`: several raters with the faults of people, for trying a loop before asking people.

The faults follow B-Pref (Lee et al. 2021), the SyntheticGatherer of imitation (Gleave et al. 2022) and AlpacaFarm
(Dubois et al. 2023).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rlhf_core import Annotator, Comparison, Feedback, PluginConfig, Question, Ranking, RewardModel, Sample, Scores, Use
from rlhf_core.errors import PipelineError


def uniform(*key: object) -> float:
    """A number in (0, 1) that depends on `key` alone, the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2**64


def gumbel(*key: object) -> float:
    """A standard Gumbel number that depends on `key` alone. The difference of two is standard logistic."""
    return -math.log(-math.log(uniform(*key)))


def normal(*key: object) -> float:
    """A standard normal number that depends on `key` alone."""
    return NormalDist().inv_cdf(uniform(*key))


def lognormal(spread: float, *key: object) -> float:
    """A factor with median 1 whose logarithm has standard deviation `spread`."""
    return math.exp(spread * normal(*key)) if spread else 1.0


class Person(BaseModel):
    """What one rater has of her own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    noise: float = Field(1.0, gt=0)
    """Factor on `temperature`."""
    ties: float = Field(1.0, gt=0)
    """Factor on `tie_below`."""
    lean: float = 0.0
    """Utility added to `position_bias`."""
    share: float = Field(1.0, gt=0)
    """How often she answers, in proportion to the others."""


class SimulatedPanel(Annotator):
    """Each rater sees the judge's scores through own values, biases and noise. Compares two samples, ranks more.

    A rater's utility of sample i is
    u_i = sum_c f_c * points_ic + taste * e_i + position_bias * p_i + length_bias * characters_i,
    with own factors f_c and a standard normal e_i that all raters share. What the rater perceives is
    u_i + T * Gumbel, so that the first of two is preferred with probability sigmoid((u_1 - u_2) / T) (Bradley & Terry
    1952), and a ranking follows Plackett-Luce. Perceptions close together tie; a flip turns the answer round.

    Every draw is made from (seed, rater, question) and nothing else: taking a rater off the panel (`absent`) leaves all
    answers of the others as they are. Questions that the absent rater would have answered go to the next in line.
    With the defaults and the `newsroom` judge three quarters to four fifths of the answers agree with the judge.
    """

    yields = frozenset({Comparison, Ranking})
    source = "simulated"

    class Config(PluginConfig):
        """Who the raters are. Utilities are in the judge's units."""

        raters: int = Field(5, ge=1)
        """How many."""
        prefix: str = Field("simulated", min_length=1)
        """Raters are called `simulated-1`, `simulated-2`, ..."""
        judge: Annotated[Use, Use.of("reward_models")] = Use(use="principles")
        """What is truly better: a reward model that needs no training. Its criteria are what raters weigh differently;
        they should add up to its mean, as those of `principles` do."""
        values: dict[str, float] = {}
        """Factor of all raters on some of the judge's criteria: 0 for one that they do not care about."""
        values_spread: float = Field(0.25, ge=0)
        """How different the raters' values are: standard deviation of the log of a rater's factor on a criterion."""
        taste: float = Field(0.0, ge=0)
        """What all raters see in a sample and the judge does not: a standard deviation."""
        temperature: float = Field(0.3, ge=0)
        """Noise: a difference of this size is seen rightly by sigmoid(1) = 73 % of the raters."""
        temperature_spread: float = Field(0.3, ge=0)
        """How different the raters' care is: standard deviation of the log of a rater's factor on `temperature`."""
        drift: float = Field(0.05, ge=0)
        """Raters tire: the noise grows by this share with each round of the samples shown."""
        tie_spread: float = Field(0.0, ge=0)
        """How different the raters' readiness to tie is: standard deviation of the log of a rater's factor on
        `tie_below`."""
        alike: float = Field(0.0, ge=0, le=1)
        """Share of the questions whose samples all raters find equally good, whatever the judge says."""
        alike_noise: float = Field(1.0, gt=0)
        """Factor on the noise at those: below 1 where raters are surer that samples are equal than which is better."""
        flip: float = Field(0.05, ge=0, le=1)
        """Probability of pressing the wrong key: the order is turned round."""
        tie_below: float = Field(0.05, ge=0)
        """Perceived difference up to which two samples tie."""
        skip: float = Field(0.02, ge=0, le=1)
        """Probability of not answering."""
        position_bias: float = 0.05
        """Utility added to what is shown first, falling evenly to none for what is shown last."""
        position_spread: float = Field(0.0, ge=0)
        """How different the raters are in that: standard deviation of what a rater adds to `position_bias`."""
        length_bias: float = 0.001
        """Utility added for each character."""
        team: tuple[Person, ...] = ()
        """The raters one by one, where they are known, instead of `temperature_spread`, `tie_spread` and
        `position_spread`. Where there are more raters, it begins again."""
        absent: tuple[str, ...] = ()
        """Names of raters who are away."""
        seed: int = 0
        """Who the raters are. Not the pipeline's seed: they stay the same people from round to round and run to run."""

    judge: RewardModel | None = None
    """What is truly better; made from the config when first needed, or set by whoever has one."""

    def set_up(self) -> None:
        """Call the panel together."""
        names = [f"{self.config.prefix}-{number}" for number in range(1, self.config.raters + 1)]
        for name in self.config.absent:
            if name not in names:
                raise PipelineError(
                    f"{name!r} is said to be absent but is not on the panel",
                    remedy=f"The panel is {names[0]} to {names[-1]}.",
                )
        present = [name for name in names if name not in self.config.absent]
        if not present:
            raise PipelineError("all raters are absent", remedy="Leave at least one rater out of `absent`.")
        team = self.config.team or (None,)
        people = {name: team[number % len(team)] for number, name in enumerate(names)}
        self.raters = [Rater(name, self.config, people[name]) for name in present]

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """`question.wanted` answers to each question, by raters drawn for it; fewer where the panel is smaller."""
        judge = self._the_judge()
        pairs = [(question.prompt, sample) for question in questions for sample in question.samples]
        scores = judge.score([prompt for prompt, _ in pairs], [sample for _, sample in pairs])
        start = 0
        for question in questions:
            end = start + len(question.samples)
            seen = Scores(
                scores.mean[start:end], None, {name: all_[start:end] for name, all_ in scores.criteria.items()}
            )
            for rater in self.assigned(question):
                yield rater.answer(question, seen)
            start = end

    def assigned(self, question: Question) -> list[Rater]:
        """The raters who answer: each has a random place in the question's queue, and the first `wanted` are asked.

        The places come from exponential waiting times, so that the first is a rater with probability of her share.
        """

        def waits(rater: Rater) -> float:
            return -math.log1p(-uniform(self.config.seed, rater.name, question.id, "queue")) / rater.share

        return sorted(self.raters, key=waits)[: question.wanted]

    def _the_judge(self) -> RewardModel:
        if self.judge is None:
            from rlhf_core.plugins.registry import Registry

            judge: RewardModel = Registry().create("reward_models", self.config.judge, run=self.run)
            if frozenset(judge.learns_from):
                raise PipelineError(
                    f"the panel's judge, {self.config.judge.use!r}, would have to be trained first",
                    remedy="Choose a reward model that learns from nothing, such as `principles`.",
                )
            self.judge = judge
        return self.judge


@dataclass(frozen=True)
class Rater:
    """One simulated person."""

    name: str
    config: SimulatedPanel.Config
    person: Person | None = None
    """What the rater has of her own; drawn by the spreads where it is not given."""

    @property
    def share(self) -> float:
        """How often the rater answers, in proportion to the others."""
        return self.person.share if self.person else 1.0

    def answer(self, question: Question, scores: Scores) -> Feedback:
        """The rater's answer to `question`, given the judge's `scores` of its samples."""
        config = self.config
        fields = {"annotator": self.name, "source": SimulatedPanel.source}
        if len(question.samples) < 2:
            return question.skip("nothing to compare", **fields)
        if uniform(*self._key(question, "skip")) < config.skip:
            return question.skip("no opinion", **fields)
        temperature = self.temperature(question)
        perceived = [
            utility + (temperature * gumbel(*self._key(question, "noise", sample.id)) if temperature else 0.0)
            for utility, sample in zip(self.utilities(question, scores), question.samples, strict=True)
        ]
        if uniform(*self._key(question, "flip")) < config.flip:
            perceived = [-value for value in perceived]
        own = self.person.ties if self.person else lognormal(config.tie_spread, config.seed, self.name, "tie")
        tie_below = config.tie_below * own
        if len(perceived) == 2:
            return question.compare(perceived, tie_below=tie_below, **fields)
        return question.rank(perceived, tie_below=tie_below, **fields)

    def utilities(self, question: Question, scores: Scores) -> list[float]:
        """What each sample is worth to the rater before noise."""
        last = len(question.samples) - 1
        alike = self.finds_alike(question)
        lean = self.config.position_bias + self.lean()
        utilities = []
        for place, sample in enumerate(question.samples):
            own = sum((self.factor(name) - 1.0) * values[place] for name, values in scores.criteria.items())
            position = lean * (last - place) / last
            length = self.config.length_bias * len(sample.text or "")
            seen = 0.0 if alike else scores.mean[place] + own + self.taste(sample) + length
            utilities.append(seen + position)
        return utilities

    def lean(self) -> float:
        """What the rater adds to the position bias."""
        if self.person:
            return self.person.lean
        return self.config.position_spread * normal(self.config.seed, self.name, "position")

    def finds_alike(self, question: Question) -> bool:
        """Whether the samples are equally good to all raters."""
        ids = sorted(sample.id for sample in question.samples)
        return uniform(self.config.seed, "alike", *ids) < self.config.alike

    def taste(self, sample: Sample) -> float:
        """What the whole panel, in equal measure, sees in `sample` beside the judge's scores."""
        if not self.config.taste:
            return 0.0
        return self.config.taste * normal(self.config.seed, "taste", sample.id)

    def factor(self, criterion: str) -> float:
        """How much more the rater cares about `criterion` than the judge does."""
        own = lognormal(self.config.values_spread, self.config.seed, self.name, "values", criterion)
        return self.config.values.get(criterion, 1.0) * own

    def temperature(self, question: Question) -> float:
        """The rater's noise at this question: the rater's own, growing with the rounds, less where all is alike."""
        spread = self.config.temperature_spread
        own = self.person.noise if self.person else lognormal(spread, self.config.seed, self.name, "temperature")
        rounds = max(sample.round for sample in question.samples)
        clear = self.config.alike_noise if self.finds_alike(question) else 1.0
        return self.config.temperature * own * clear * (1.0 + self.config.drift * rounds)

    def _key(self, question: Question, *what: str) -> tuple[object, ...]:
        return (self.config.seed, self.name, question.id, *what)
