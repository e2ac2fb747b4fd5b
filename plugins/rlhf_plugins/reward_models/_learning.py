"""What all reward models that learn from feedback on texts share: the fit from start to calibration, and scoring."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, FitJob, PluginConfig, RewardModel, Scores
from rlhf_core.records import Prompt, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhf_core.feedback.dataset import FeedbackSet, Pair
    from rlhf_plugins.reward_models._objectives import Objective, Pairs
    from rlhf_plugins.reward_models._scoring import Row

    Floats = NDArray[np.float64]

CALIBRATION = "calibration.json"
FEWEST_VALIDATION = 20
"""Held-out examples that say something below which early stopping and calibration would follow chance."""
CENTRE_ON = 256
"""Training samples that the mean of the scores is taken from."""


class LearningConfig(PluginConfig):
    """How a network is trained."""

    continue_from: Literal["base", "previous"] = "base"
    """`base`: every round learns anew from its start on all feedback so far, so that no round's feedback is seen more
    often than another's and nothing unlearnt in the first round stays so. `previous`: goes on from the last round's
    reward model, for models too large to start anew (fewer epochs are then enough)."""
    replay: int | None = Field(None, ge=0)
    """With `continue_from: previous`: how many older examples are learnt again beside those on the newest samples, so
    that a round's training does not grow with the campaign's history. Left out: all of them."""
    epochs: int = Field(3, ge=1)
    """Passes over the training examples, at most."""
    batch: int = Field(32, ge=1)
    """Examples (pairs, ratings, rankings) in one step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd`: stochastic gradient descent with Nesterov momentum 0.9, with half of AdamW's
    state in memory; it wants a learning rate some hundred times higher."""
    lr: float = Field(3e-4, gt=0)
    """Learning rate at its height. With AdamW small models learn well at 3e-4 to 1e-3, those of a billion parameters
    at about 1e-5."""
    weight_decay: float = Field(0.05, ge=0)
    """On matrices only."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Before the head, and inside the network wherever it has dropout. Training only."""
    patience: int = Field(1, ge=0)
    """Epochs in a row that may pass without a better loss on held-out prompts; training stops after one more. The
    best epoch's weights are kept in any case."""
    tie_below: float = Field(0.0, ge=0, le=1)
    """Two ratings whose difference is at most this share of their scale are a tie."""


class WeighingConfig(LearningConfig):
    """How a network is trained on what several people said."""

    weigh_annotators: bool = False
    """Whether annotators count by how reliable their answers show them to be (Dawid-Skene) instead of equally. Pays
    where several of mixed quality answer each question. In training only: what stops it early, calibrates and measures
    are the answers as people gave them."""


class PreferenceConfig(WeighingConfig):
    """How a network is trained on pairs. All of it in training only."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each label that is taken for a coin's: 0.1 for labels of which 5 % are wrong by accident."""
    margin: float = Field(0.0, ge=0)
    """By how much the better score should lead before its pair is content: so much for a sure preference, half of it
    for one of 75 %. Keeps pulling sure pairs apart."""
    balance_length: bool = False
    """Let pairs that the longer answer wins and pairs that the shorter one wins weigh the same altogether, so that
    length alone predicts nothing."""


class Asked(NamedTuple):
    """Some texts that answer one prompt."""

    prompt: Prompt
    answers: Sequence[str]


class LearntReward(RewardModel):
    """A network with an objective. Kinds say what they learn from; networks say how texts become values.

    Scores have mean 0 on training samples, and one temperature, fitted on the held-out pairs, makes
    sigma(score(first) - score(second)) the calibrated probability that the first is better, whatever was learnt from.
    """

    modality = TEXT
    description: ClassVar[str]
    """Name of the JSON file that says how to score."""
    centred: ClassVar[bool] = True
    """False where zero means something."""
    remedy: ClassVar[str] = (
        "Ask more questions (`ask.questions`), or annotators who compare, rank or rate several samples of a prompt."
    )

    def set_up(self) -> None:
        """No network before `fit` or `load`."""
        self.offset = 0.0
        self.temperature = 1.0
        self.calibration: list[dict[str, float]] = []
        """Rows of `rlhf_core.health.calibration_table` on the held-out pairs, each with its predicted winner first."""
        self.newest = 0
        """The newest round whose samples were learnt from."""
        self._valuer: Any = None

    # What a kind says

    def _items(self, feedback: FeedbackSet) -> list[Any]:
        """What `feedback` teaches, in an order that does not depend on the answers' order."""
        raise NotImplementedError

    def _preferences(self, feedback: FeedbackSet) -> list[Pair]:
        """The pairs that scores are calibrated and measured on."""
        return feedback.pairs(tie_below=self.config.tie_below)

    def _informative(self, items: Sequence[Any]) -> int:
        """How many of the items say something."""
        return len(items)

    def _lessons(self, feedback: FeedbackSet) -> list[Any]:
        """What `feedback` teaches in training."""
        return self._items(feedback)

    def _objective(self, items: Sequence[Any]) -> Objective:
        """The items as rows with a loss."""
        raise NotImplementedError

    def _training(self, items: Sequence[Any]) -> Objective:
        """The objective of lessons; held-out items have the plain one."""
        return self._objective(items)

    def _reward(self, values: Floats) -> Floats:
        """[A] from the network's values [A] or [A, K]."""
        return values

    def _unit(self, raw: Floats) -> float:
        """What a raw reward is divided by where no held-out pairs say how sure a difference is."""
        return 1.0

    def _criteria(self, values: Floats) -> dict[str, list[float]]:
        """Scores by criterion, where there are several."""
        return {}

    def _own_metrics(self, items: Sequence[Any], values: Floats) -> dict[str, Metric]:
        """Figures of this kind on held-out `items`, from the values of their objective's rows."""
        return {}

    # What a network says

    def _start(self, job: FitJob, items: Sequence[Any] = ()) -> None:
        """Make the untrained network, or take over the last round's."""
        raise NotImplementedError

    def _rows(self, asked: Sequence[Asked]) -> list[Row]:
        """Texts as rows for the network."""
        raise NotImplementedError

    def _check(self, rows: Sequence[Row]) -> None:
        """Look at some rows before training."""

    def _learn_more(self, job: FitJob) -> None:
        """What is learnt on top of the trained network."""

    # What is the same for all

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Learn from `job.train`. Metrics are those of `rlhf_core.health` on `job.validation`, with the sizes.

        The same held-out pairs choose the epoch and the temperature and are measured: one number each, so that the
        figures are a little, but only a little, on the bright side. Raises TrainingError where there is nothing to
        learn from and where the loss isn't finite (before it reaches the weights).
        """
        import numpy as np
        import torch

        from rlhf_plugins.reward_models._fitting import Fitting

        items = self._lessons(job.train)
        if not self._informative(items):
            raise TrainingError(self._nothing(len(job.train), items), remedy=self.remedy)
        held_out = self._items(job.validation)
        items = self._fresh(items, job.previous)
        self._start(job, [*items, *held_out])
        train, valid = self._training(items), self._objective(held_out)
        self._check(train.rows)
        enough = self._informative(held_out) >= FEWEST_VALIDATION
        if not enough:
            self.run.note(
                f"{len(held_out)} held-out {self._words()} are too few: no early stopping, no calibration"
                f" (wanted: {FEWEST_VALIDATION} that say something)"
            )

        def validation_loss() -> float:
            values = torch.from_numpy(self._valuer.score(valid.rows))
            return float(valid.loss(values, np.arange(len(valid))).detach())

        options = self.config.model_dump(include={"epochs", "batch", "optimizer", "lr", "weight_decay", "patience"})
        state = Fitting(
            self._valuer,
            train,
            self.run,
            validate=validation_loss if enough else None,
            after_epoch=lambda epoch: self.run.on_epoch(epoch, self),
            **options,
        ).fit()
        self._learn_more(job)
        self._scale(train.rows)
        found = self._calibrate(job, enough)
        self.newest = max(map(round_of, items), default=0)
        if held_out:
            found |= self._own_metrics(held_out, self._valuer.score(valid.rows))
        return found | {
            f"reward_train_{self._words()}": Metric(value=len(items)),
            f"reward_validation_{self._words()}": Metric(value=len(held_out)),
            "reward_best_epoch": Metric(value=state.best_epoch),
            "reward_temperature": Metric(value=self.temperature),
        }

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Calibrated, centred scores. Other samples of the call change a score by rounding only (about 1e-5 of the
        scores' spread in float32, 1e-2 in bfloat16). Answers to one prompt are cheaper together.
        """
        self._learnt("Fit it, or load a saved one.")
        asked = [Asked(prompt, [text_of(sample, self)]) for prompt, sample in zip(prompts, samples, strict=True)]
        values = self._valuer.score(self._rows(asked))
        mean = (self._reward(values) - self.offset) / self.temperature
        return Scores(mean.tolist(), criteria=self._criteria(values))

    def _scale(self, rows: Sequence[Row]) -> None:
        """Centre the scores on some of the training samples."""
        some = rows[:: max(sum(len(row.answers) for row in rows) // CENTRE_ON, 1)]
        raw = self._reward(self._valuer.score(some))
        self.offset = float(raw.mean()) if self.centred else 0.0
        self.temperature = self._unit(raw)

    def _calibrate(self, job: FitJob, enough: bool) -> dict[str, Metric]:
        """Fit the temperature on the held-out pairs, and measure on them."""
        from rlhf_core import health

        pairs = self._preferences(job.validation)
        margins = self.margins(pairs)
        stated = health.predictions(pairs, margins)
        decided = sum(pair.probability != 0.5 for pair in pairs)
        if enough and decided >= FEWEST_VALIDATION and self.centred:
            self.temperature = health.fit_temperature(margins, stated.stated, stated.weight)
        stated = health.predictions(pairs, health.sigmoid(margins / self.temperature))
        self.calibration = health.calibration_table(*health.surer_first(stated.predicted, stated.stated, stated.weight))
        trained = self._preferences(job.train)
        longer = health.longer_wins(health.predictions(trained, [pair.probability for pair in trained]))
        return health.preference_health(stated, longer_is_better=longer, seed=self.run.seed)

    def margins(self, pairs: Sequence[Pair]) -> Floats:
        """Raw reward of the first minus that of the second, [N]."""
        raw = self._reward(self._valuer.score(self._pair_rows(pairs)))
        return raw[0::2] - raw[1::2]

    def _pair_rows(self, pairs: Sequence[Pair]) -> list[Row]:
        return self._rows([Asked(p.prompt, [text_of(p.first, self), text_of(p.second, self)]) for p in pairs])

    def _tensors(self, pairs: Sequence[Pair]) -> Pairs:
        """Pairs as rows with the Bradley-Terry loss."""
        import numpy as np

        from rlhf_plugins.reward_models._objectives import Pairs

        stated, weight = (np.array([getattr(pair, name) for pair in pairs]) for name in ("probability", "weight"))
        return Pairs(self._pair_rows(pairs), stated, weight)

    def _fresh(self, items: list[Any], previous: RewardModel | None) -> list[Any]:
        """All items; or those that the last round's model has not seen, and some of the others to remember."""
        seen = previous.newest if isinstance(previous, LearntReward) and self._continues(previous) else None
        if seen is None or self.config.replay is None:
            return items
        old = [i for i, item in enumerate(items) if round_of(item) <= seen]

        def draw(i: int) -> bytes:
            prompt = items[i].prompt.id
            return hashlib.sha256(f"{self.run.seed}/{prompt}/{i}".encode()).digest()

        forgotten = set(sorted(old, key=draw)[self.config.replay :])
        kept = [item for i, item in enumerate(items) if i not in forgotten]
        return kept if self._informative(kept) else items

    def _continues(self, previous: RewardModel | None) -> bool:
        """Whether training goes on from the last round's model."""
        return (
            self.config.continue_from == "previous"
            and type(previous) is type(self)
            and getattr(previous, "_valuer", None) is not None
        )

    def _learnt(self, remedy: str) -> None:
        """Raises RlhfError where nothing was learnt yet."""
        if self._valuer is None:
            raise RlhfError(f"the reward model `{self._name()}` has learnt nothing yet", remedy=remedy)

    def _write(self, folder: Path, description: Mapping[str, Any]) -> None:
        common = {"offset": self.offset, "temperature": self.temperature, "newest": self.newest}
        (folder / self.description).write_text(json.dumps({**description, **common}, indent=2) + "\n", encoding="utf-8")
        (folder / CALIBRATION).write_text(json.dumps(self.calibration, indent=2) + "\n", encoding="utf-8")

    def _read(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / self.description).read_text(encoding="utf-8"))
        self.offset, self.temperature, self.newest = found["offset"], found["temperature"], found["newest"]
        self.calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        return found

    def _nothing(self, answers: int, items: Sequence[Any]) -> str:
        return f"nothing to learn from: {answers} answers on training prompts hold {len(items)} {self._words()}"

    def _words(self) -> str:
        """What the items are called, in metrics and notes."""
        return "pairs"

    @classmethod
    def _name(cls) -> str:
        return cls.description.removesuffix(".json")


def round_of(item: Any) -> int:
    """The newest round among an item's samples."""
    return max((part.round for part in _samples(item)), default=0)


def _samples(item: Any) -> list[Sample]:
    found: list[Sample] = []
    for part in item:
        if isinstance(part, Sample):
            found.append(part)
        elif isinstance(part, tuple):
            found += [inner for inner in part if isinstance(inner, Sample)]
    return found


def text_of(sample: Sample, reader: RewardModel) -> str:
    """The sample's text. Raises RlhfError for a trajectory."""
    if sample.text is None:
        name = getattr(reader, "description", type(reader).__name__.lower()).removesuffix(".json")
        raise RlhfError(f"`{name}` reads texts, not trajectories", remedy="Choose a reward model for control.")
    return sample.text
