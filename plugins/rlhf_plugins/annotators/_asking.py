"""What people are asked, in whatever program they answer."""

from __future__ import annotations

from typing import Literal

from rlhf_core import PluginConfig
from rlhf_core.feedback.forms import Criterion, Form


class AskingConfig(PluginConfig):
    """What the annotators see."""

    form: Literal["preference", "rating", "writing"] = "preference"
    """What is asked: which sample is better, how good each one is, or the annotator's own answer."""
    title: str = ""
    """Heading of the page."""
    guidelines: str = ""
    """What stands beside the task: plain text."""
    criteria: dict[str, str] = {"overall": ""}
    """What samples are rated by, and what each criterion means."""
    low: int = 1
    """Low end of the rating scale."""
    high: int = 5
    """High end of the rating scale."""


def form_of(config: AskingConfig, *, gold_every: int = 0, repeat_every: int = 0) -> Form:
    """The form that `config` describes. Raises pydantic.ValidationError where its scale or criteria are none."""
    return Form(
        kind=config.form,
        title=config.title,
        guidelines=config.guidelines,
        criteria=tuple(Criterion(name=name, description=said) for name, said in config.criteria.items()),
        low=config.low,
        high=config.high,
        gold_every=gold_every,
        repeat_every=repeat_every,
    )
