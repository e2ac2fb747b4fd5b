"""A pipeline as data: which plugins, how often, with which seed.

`rlhf_core.pipeline.file` reads it from YAML; `rlhf_core.pipeline.wiring` proves that its parts fit together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from rlhf_core.pipeline.placement import Part, Placement
from rlhf_core.plugins.base import Use
from rlhf_core.plugins.step import StepUse


def _several(value: Any) -> Any:
    """One plugin may stand for a list of one."""
    return (value,) if isinstance(value, dict | Use) else value


class Ask(Part):
    """Whom to ask in each round, and about what."""

    questions: int = Field(400, ge=1)
    """Questions a round."""
    samples: int = Field(4, ge=2)
    """Samples drawn from the policy for each prompt."""
    prompts: int | None = Field(None, ge=1)
    """Prompts to sample a round; default: as many as there are questions."""
    overlap: int = Field(1, ge=1)
    """Answers wanted for each question from each annotator plugin, by different annotators."""
    selector: Annotated[Use, Use.of("selectors")] = Use(use="random")
    """Chooses which samples to ask about."""
    measure_selection: bool = False
    """Fit two more reward models each round, on equally many answers to chosen questions and to the control arm's, to
    see what the selector gains (`selection_gain`, the difference of their accuracies on held-out prompts)."""
    annotators: Annotated[tuple[Use, ...], Use.of("annotators")] = Field(min_length=1)
    """Who answers; every one is asked every question."""
    convert: Annotated[
        tuple[Use, ...],
        Use.of("converters"),
        BeforeValidator(_several, json_schema_input_type=Use | tuple[Use, ...]),
    ] = ()
    """What else the feedback says, for reward models that learn from other kinds than it has: one converter, or a list
    in which each also sees what those before it found."""


class Test(Part):
    """What the evaluators see."""

    __test__ = False

    prompts: int = Field(200, ge=1)
    """Held-out prompts at most."""
    samples: int = Field(2, ge=1)
    """Samples a policy and prompt."""
    annotators: float = Field(0.0, ge=0, lt=1)
    """Share of the annotators, at least one, whose answers train no reward model, so that it can be measured on people
    it never heard (`reward_accuracy_new_annotators`). 0 for none, which learns from everybody."""


class Span(Part):
    """Where one field is searched: `{low: 1e-4, high: 1e-2, log: true}` or `{among: [16, 32, 64]}`."""

    low: int | float | None = None
    """The least value."""
    high: int | float | None = None
    """The greatest value. Where both ends are written as whole numbers, all values are whole."""
    log: bool = False
    """Search evenly over the logarithm, as suits learning rates."""
    among: tuple[JsonValue, ...] | None = Field(None, min_length=1)
    """Instead of a range: the values to choose from."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.among is None) == (self.low is None or self.high is None):
            raise ValueError("give either `low` and `high`, or `among`")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low ({self.low}) should be less than high ({self.high})")
            if self.log and self.low <= 0:
                raise ValueError("a logarithmic range should start above 0")
        return self

    def examples(self) -> list[JsonValue]:
        """Values that are all right only if the whole span is: its ends and a point between, or all choices."""
        if self.among is not None:
            return list(self.among)
        assert self.low is not None and self.high is not None
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return [self.low, self.high] if whole else [self.low, self.high, self.low + 0.382 * (self.high - self.low)]


class Tune(Part):
    """Search for the reward model's settings before it is fitted."""

    space: dict[str, Span] = Field(min_length=1)
    """Fields of the reward model and where to search them; those of an ensemble's member as `members.0.lr`."""
    trials: int = Field(16, ge=1)
    """Fits to try, the first of them as `reward` is written."""
    metric: Literal["log_loss", "brier", "accuracy", "auc", "spearman"] = "log_loss"
    """What a trial is judged by, on the feedback of validation prompts: test prompts stay unseen. `spearman` needs
    ratings, the others pairs; the first two are best when low."""
    pruner: Literal["median"] | None = None
    """`median`: give up a trial once it is judged worse after an epoch than the median of the trials before it was
    there (Optuna's MedianPruner, from the sixth trial on). For reward models that learn in epochs; of an ensemble the
    first member is judged. Left out: every trial is fitted to its end."""
    rounds: Literal["first", "every"] = "first"
    """`first`: later rounds keep what the first one chose. `every`: each round searches anew on all its feedback."""


class Pipeline(Placement):
    """One pipeline file."""

    pipeline: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
    """Name: the MLflow experiment, and the prefix of the registered models."""
    seed: int = Field(0, ge=0)
    """All randomness follows from it."""
    rounds: int = Field(1, ge=1)
    """Rounds of the campaign."""
    data: Annotated[tuple[Use, ...], Use.of("data_sources")] = Field(min_length=1)
    """Where prompts, demonstrations and existing feedback come from."""
    policy: Annotated[Use, Use.of("policies")]
    """What is aligned."""
    warm_start: Annotated[Use | None, Use.of("warm_starts")] = None
    """Imitation before the first round."""
    ask: Ask | None = None
    """Asking for new feedback; left out where the data brings all feedback."""
    reward: Annotated[Use | None, Use.of("reward_models")] = None
    """Learns what is preferred; left out where the optimizer learns from the feedback itself."""
    tune: Tune | None = None
    """Search for the reward model's settings; needs the extra `tune`."""
    patches: tuple[Path, ...] = ()
    """Patch sets: JSONL files of problems that were found once (`prompt`, `better`, `worse`; `why` for the reader and
    `since`, the first round that must get it right). A reward model that does not score `better` above `worse` stops
    its round, with the examples. More of them go on with the same campaign."""
    gold: Annotated[Use | None, Use.of("reward_models")] = None
    """The held-back judge, which training never sees; one that learns is fitted on test-split feedback alone."""
    optimize: Annotated[Use, Use.of("optimizers")]
    """Improves the policy: by the reward, or by the feedback itself where there is no reward model."""
    start_from: Literal["champion", "warm_start"] = "champion"
    """Where each round's optimisation starts: from the champion so far, or anew from the warm start."""
    reference: Literal["champion", "warm_start"] = "warm_start"
    """What the optimizer measures its KL divergence against: the champion so far, or the warm start."""
    test: Test = Test()
    """Held-out evaluation."""
    evaluate: Annotated[tuple[Use, ...], Use.of("evaluators")] = Field(min_length=1)
    """Measures the challenger."""
    gate: Annotated[Use, Use.of("gates")]
    """Promotes it or not."""
    steps: Annotated[
        tuple[StepUse, ...],
        Use.of("steps"),
        BeforeValidator(_several, json_schema_input_type=StepUse | tuple[StepUse, ...]),
    ] = ()
    """Stages of one's own, in order: one, or a list of `{use: NAME, after: data}`."""
