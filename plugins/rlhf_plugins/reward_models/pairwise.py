"""A transformer with a scalar head that learns which of two answers people prefer."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, FitJob, LanguageModelPolicy, PluginConfig, RewardModel, Scores
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample

if TYPE_CHECKING:
    import torch

    from rlhf_core.feedback.dataset import Pair
    from rlhf_core.health import Predictions
    from rlhf_core.lm.heads import ScalarHead
    from rlhf_core.lm.text import PromptFormat
    from rlhf_plugins.reward_models._fitting import Pairs

DESCRIPTION = "pairwise.json"
CALIBRATION = "calibration.json"
FEWEST_VALIDATION = 20
"""Held-out pairs without a tie below which early stopping and calibration would follow chance."""
CENTRE_ON = 512
"""Training samples that the mean of the scores is taken from."""


class Pairwise(RewardModel):
    """Bradley-Terry on a transformer: P(first is better) = sigma(score(first) - score(second)).

    Learns from soft labels: comparisons with ties and strengths, and the comparisons that rankings and ratings hold.
    A pair counts as often as people answered it: the loss is the likelihood of all answers. Scores have mean 0 on
    training samples, and one temperature, fitted on the held-out pairs, makes the probabilities calibrated.
    """

    modality = TEXT
    learns_from = frozenset({Comparison, Ranking, Rating})

    class Config(PluginConfig):
        """What it starts from and how it is trained."""

        model: str = "policy"
        """`policy`: starts from the warm-started policy's weights, which already read this kind of text. Otherwise a
        causal language model by its name on the hub or its folder."""
        continue_from: Literal["base", "previous"] = "base"
        """`base`: every round learns anew from `model` on all feedback so far, so that no round's feedback is seen more
        often than another's and nothing unlearnt in the first round stays so. `previous`: goes on from the last round's
        reward model, for models too large to start anew (fewer epochs are then enough)."""
        epochs: int = Field(3, ge=1)
        """Passes over the training pairs, at most."""
        batch: int = Field(32, ge=1)
        """Pairs in one step."""
        lr: float = Field(3e-4, gt=0)
        """Learning rate of AdamW at its height. Small models learn well at 3e-4 to 1e-3, those of a billion parameters
        at about 1e-5."""
        weight_decay: float = Field(0.05, ge=0)
        """Of AdamW, on matrices only."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Before the head, and inside the transformer wherever it has dropout. Training only."""
        patience: int = Field(1, ge=0)
        """Epochs in a row that may pass without a better loss on held-out prompts; training stops after one more. The
        best epoch's weights are kept in any case."""
        max_prompt_tokens: int | None = Field(None, ge=1)
        """Longer prompts lose their beginning. Left out: as the policy's."""
        max_answer_tokens: int | None = Field(None, ge=2)
        """Longer answers lose their end. Left out: as the policy's."""
        tie_below: float = Field(0.0, ge=0, le=1)
        """Two ratings whose difference is at most this share of their scale are a tie."""
        weigh_annotators: bool = False
        """Whether the training labels count annotators by how reliable they are (Dawid-Skene) instead of equally. Pays
        where several annotators of mixed quality answer each question."""

    def set_up(self) -> None:
        """No model before `fit` or `load`."""
        self.scalar: ScalarHead | None = None
        """The transformer with its head; raw values, neither centred nor calibrated."""
        self.format: PromptFormat
        self.max_answer_tokens = 0
        self.compute: torch.dtype
        self.offset = 0.0
        self.temperature = 1.0
        self.calibration: list[dict[str, float]] = []
        """Rows of `rlhf_core.health.calibration_table` on the held-out pairs, each with its predicted winner first."""

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Learn from `job.train`. Metrics are those of `rlhf_core.health` on `job.validation`, with the sizes.

        The same held-out pairs choose the epoch and the temperature and are measured: one number each, so that the
        figures are a little, but only a little, on the bright side. Raises TrainingError where no pair has a preference
        and where the loss isn't finite (before it reaches the weights).
        """
        from rlhf_core import health
        from rlhf_plugins.reward_models._bradley_terry import fit_temperature, set_dropout, sigmoid
        from rlhf_plugins.reward_models._fitting import Fitting

        pairs = job.train.pairs(tie_below=self.config.tie_below, weigh=self.config.weigh_annotators)
        if not any(pair.probability != 0.5 for pair in pairs):
            raise TrainingError(
                f"no preference to learn from: {len(job.train)} answers on training prompts hold {len(pairs)} pairs of "
                "different samples, " + ("all tied" if pairs else "so nothing can be compared"),
                remedy="Ask more questions (`ask.questions`), or annotators who compare, rank or rate several samples "
                "of a prompt.",
            )
        self._start(job)
        assert self.scalar is not None
        train, held_out = self._tensors(pairs), job.validation.pairs(tie_below=self.config.tie_below)
        valid = self._tensors(held_out)
        if not self._valuer.check(train.rows[:4]):
            self.run.note("this architecture cannot share a prompt between answers: each is computed on its own")
        enough = sum(pair.probability != 0.5 for pair in held_out) >= FEWEST_VALIDATION
        if not enough:
            self.run.note(
                f"{len(held_out)} held-out pairs are too few: no early stopping, no calibration"
                f" (wanted: {FEWEST_VALIDATION} that aren't ties)"
            )

        def validation_loss() -> float:
            return health.log_loss(sigmoid(self._margins(valid)), valid.stated, valid.weight)

        set_dropout(self.scalar, self.config.dropout)
        options = self.config.model_dump(include={"epochs", "batch", "lr", "weight_decay", "patience"})
        state = Fitting(self._valuer, train, self.run, validate=validation_loss if enough else None, **options).fit()
        some = train.rows[:: max(len(train) * 2 // CENTRE_ON, 1)]
        self.offset = float(self._valuer.score(some).mean())
        margins = self._margins(valid)
        self.temperature = fit_temperature(margins, valid.stated, valid.weight) if enough else 1.0
        stated = _predictions(held_out, sigmoid(margins / self.temperature))
        self.calibration = health.calibration_table(*health.surer_first(stated.predicted, stated.stated, stated.weight))
        longer = health.longer_wins(_predictions(pairs, train.stated))
        return health.preference_health(stated, longer_is_better=longer, seed=self.run.seed) | {
            "reward_train_pairs": Metric(value=len(pairs)),
            "reward_validation_pairs": Metric(value=len(held_out)),
            "reward_best_epoch": Metric(value=state.best_epoch),
            "reward_temperature": Metric(value=self.temperature),
        }

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Calibrated, centred scores. Other samples of the call change a score by rounding only (about 1e-5 of the
        scores' spread in float32, 1e-2 in bfloat16). Answers to one prompt are cheaper together.
        """
        import numpy as np

        from rlhf_plugins.reward_models._scoring import MOST_ANSWERS, Row

        if self.scalar is None:
            raise RlhfError("the reward model `pairwise` has learnt nothing yet", remedy="Fit it, or load a saved one.")
        asked, answered = self._tokens(prompts, [_text(sample) for sample in samples])
        together: dict[str, list[list[int]]] = {}
        for i, prompt in enumerate(prompts):
            groups = together.setdefault(prompt.id, [[]])
            if len(groups[-1]) == MOST_ANSWERS:
                groups.append([])
            groups[-1].append(i)
        groups = [group for groups in together.values() for group in groups]
        rows = [Row(asked[group[0]], [answered[i] for i in group]) for group in groups]
        values = np.empty(len(samples))
        if rows:
            values[np.concatenate(groups)] = self._valuer.score(rows)
        return Scores(((values - self.offset) / self.temperature).tolist())

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the tokenizer, the rest as JSON; needs neither the policy nor the hub to load.

        The report draws `calibration.json`.
        """
        if self.scalar is None:
            raise RlhfError("the reward model `pairwise` has learnt nothing yet", remedy="Fit it before saving it.")
        self.scalar.save(folder)
        self.format.tokenizer.save_pretrained(folder)
        description = {
            "max_prompt_tokens": self.format.max_prompt_tokens,
            "max_answer_tokens": self.max_answer_tokens,
            "compute_dtype": str(self.compute).removeprefix("torch."),
            "packs": self._valuer.packs,
            "offset": self.offset,
            "temperature": self.temperature,
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (folder / CALIBRATION).write_text(json.dumps(self.calibration, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Ready to score, and to be continued from."""
        import torch
        from transformers import AutoTokenizer

        from rlhf_core.lm.heads import ScalarHead
        from rlhf_core.lm.model import best_device
        from rlhf_core.lm.text import PromptFormat

        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        scalar = ScalarHead.load(folder, device=best_device())
        text_format = PromptFormat(AutoTokenizer.from_pretrained(folder), description["max_prompt_tokens"])
        self._take(scalar, text_format, description["max_answer_tokens"], getattr(torch, description["compute_dtype"]))
        self._valuer.packs = description["packs"]
        self.offset, self.temperature = description["offset"], description["temperature"]
        self.calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))

    def _start(self, job: FitJob) -> None:
        """The untrained model: the last round's, the policy's weights, or a model by name."""
        from rlhf_core.lm.heads import ScalarHead
        from rlhf_core.lm.model import LanguageModel
        from rlhf_core.lm.text import PromptFormat

        previous = job.previous
        if self.config.continue_from == "previous" and isinstance(previous, Pairwise) and previous.scalar is not None:
            self._take(copy.deepcopy(previous.scalar), previous.format, previous.max_answer_tokens, previous.compute)
            return
        base = job.base.lm if isinstance(job.base, LanguageModelPolicy) else None
        most_prompt = self.config.max_prompt_tokens or (base.max_prompt_tokens if base else None)
        most_answer = self.config.max_answer_tokens or (base.max_new_tokens if base else None)
        if most_prompt is None or most_answer is None or (base is None and self.config.model == "policy"):
            raise TrainingError(
                "there is no language-model policy that the reward model could start from",
                remedy="Set `reward.model` to a model's name or folder, with `max_prompt_tokens` and "
                "`max_answer_tokens`.",
            )
        if self.config.model == "policy":
            assert base is not None
            context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
            if context is not None and most_prompt + most_answer > context:
                raise TrainingError(
                    f"max_prompt_tokens {most_prompt} and max_answer_tokens {most_answer} are together more than the "
                    f"{context} tokens the model can see",
                    remedy=f"Make their sum at most {context}.",
                )
            scalar, lm = ScalarHead.from_language_model(base), base
        else:
            lm = LanguageModel.from_pretrained(
                self.config.model, max_prompt_tokens=most_prompt, max_new_tokens=most_answer
            )
            scalar = ScalarHead(lm.model.get_decoder())
        # Kept in float32, because lower precision swallows small updates; `compute` is what it is computed in.
        self._take(scalar.float(), PromptFormat(lm.tokenizer, most_prompt), most_answer, lm.compute_dtype)

    def _take(self, scalar: ScalarHead, text_format: PromptFormat, answer_tokens: int, compute: torch.dtype) -> None:
        from rlhf_plugins.reward_models._scoring import Valuer

        self.scalar, self.format, self.max_answer_tokens, self.compute = scalar, text_format, answer_tokens, compute
        self._valuer = Valuer(scalar, text_format.pad_id, compute)

    def _tokens(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Tokens of prompts and of answers; every answer ends with EOS, where its value is read, even a cut one."""
        most, end = self.max_answer_tokens, self.format.eos_id
        answers = [
            tokens if len(tokens) <= most else [*tokens[: most - 1], end]
            for tokens in self.format.answer_tokens(texts, prompts)
        ]
        return self.format.prompt_tokens(prompts), answers

    def _tensors(self, pairs: Sequence[Pair]) -> Pairs:
        import numpy as np

        from rlhf_plugins.reward_models._fitting import Pairs
        from rlhf_plugins.reward_models._scoring import Row

        texts = [_text(sample) for pair in pairs for sample in (pair.first, pair.second)]
        asked, answered = self._tokens([pair.prompt for pair in pairs for _ in "ab"], texts)
        rows = [Row(asked[i], answered[i : i + 2]) for i in range(0, len(asked), 2)]
        return Pairs(rows, np.array([pair.probability for pair in pairs]), np.array([pair.weight for pair in pairs]))

    def _margins(self, pairs: Pairs) -> Any:
        """Raw value of the first minus that of the second, [N]."""
        values = self._valuer.score(pairs.rows)
        return values[0::2] - values[1::2]


def _predictions(pairs: Sequence[Pair], predicted: Any) -> Predictions:
    import numpy as np

    from rlhf_core.health import Predictions

    return Predictions(
        predicted=predicted,
        stated=np.array([pair.probability for pair in pairs]),
        weight=np.array([pair.weight for pair in pairs]),
        longer=np.array([float(len(_text(pair.first)) - len(_text(pair.second))) for pair in pairs]),
        prompts=[pair.prompt.group or pair.prompt.id for pair in pairs],
    )


def _text(sample: Sample) -> str:
    if sample.text is None:
        raise RlhfError("`pairwise` reads texts, not trajectories", remedy="Choose a reward model for control.")
    return sample.text
