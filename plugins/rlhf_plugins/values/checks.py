"""Checks: pure functions from a prompt and a sample to a number, 1 where the value is fully kept, 0 where not at all.

A check decays smoothly rather than jumping, so that two imperfect samples can still be told apart. An empty text keeps
no value. Parameters are typed and checked when a list of principles is read.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from rlhf_core import Prompt, Sample
from rlhf_core.errors import DataError
from rlhf_plugins.values.facts import Vocabulary, read
from rlhf_plugins.values.words import Phrases, is_chinese, word_count
from rlhf_plugins.values.words import words as split

Check = Callable[[Prompt, Sample], float]
CHECKS: dict[str, Callable[..., float]] = {}
"""Every check by name."""


def check(function: Callable[..., float]) -> Callable[..., float]:
    """Register `function(prompt, sample, *, parameters...)` as a check under its own name."""
    CHECKS[function.__name__] = function
    return function


def bind(name: str, parameters: Mapping[str, Any]) -> Check:
    """The check `name` with its `parameters`, which are validated. Raises ValueError where something does not fit."""
    if name not in CHECKS:
        close = get_close_matches(name, CHECKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(CHECKS))}"
        raise ValueError(f"no check is called {name!r}; {hint}")
    function = CHECKS[name]
    model = _parameters_of(function)
    valid = model.model_validate(dict(parameters))
    chosen = {field: getattr(valid, field) for field in model.model_fields}
    return lambda prompt, sample: function(prompt, sample, **chosen)


def _parameters_of(function: Callable[..., float]) -> type[BaseModel]:
    """A model of the keyword-only parameters of a check."""
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {
        parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for parameter in signature.parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    return create_model(function.__name__, __config__=config, **fields)


def _phrases(value: Any) -> Phrases[None]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("must be a list of words and phrases")
    return Phrases({str(phrase): None for phrase in value})


def _vocabulary(value: Any) -> Vocabulary | None:
    if value == "newsroom":
        from rlhf_plugins.newsroom.languages import vocabulary

        return vocabulary()
    if isinstance(value, Mapping):
        return Vocabulary(value)
    if value is None:
        return None
    raise ValueError("must be `newsroom`, or a mapping fact -> value -> list of phrases")


Lexicon = Annotated[Phrases[None], BeforeValidator(_phrases)]
KnownValues = Annotated[Vocabulary | None, BeforeValidator(_vocabulary)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weights = Annotated[dict[str, Positive], Field(min_length=1)]


def text_of(sample: Sample) -> str:
    """The sample's text. Raises DataError where it is a trajectory."""
    if sample.text is None:
        raise DataError(
            "a check of texts was given a trajectory",
            remedy="Use a list of principles for control, such as one with the check `environment_return`.",
        )
    return sample.text


@check
def lexicon_absent(prompt: Prompt, sample: Sample, *, words: Lexicon, each: Share = 0.3) -> float:
    """`each` to the power of the number of listed `words` (or phrases, or marks) that occur."""
    found = split(text_of(sample))
    return each ** len(words.find(found)) if found else 0.0


@check
def capitals_absent(prompt: Prompt, sample: Sample, *, each: Share = 0.5) -> float:
    """`each` to the power of the number of words of three or more letters that are all capitals."""
    text = text_of(sample)
    shouted = sum(len(word) >= 3 and word.isupper() for word in re.findall(r"[^\W\d_]+", text))
    return each**shouted if text.strip() else 0.0


@check
def length_between(
    prompt: Prompt, sample: Sample, *, minimum: float = 1, maximum: Positive, softness: Positive = 2
) -> float:
    """1 from `minimum` to `maximum` words; outside, exp(-(d / softness)²) at a distance of d words.

    A Chinese character is half a word.
    """
    count = word_count(text_of(sample))
    distance = max(minimum - count, count - maximum, 0.0)
    return math.exp(-((distance / softness) ** 2)) if count else 0.0


@check
def brevity(prompt: Prompt, sample: Sample, *, scale: Positive = 20) -> float:
    """exp(-n / scale) for n average words: letters count a sixth of a word, Chinese characters a half."""
    letters = [letter for letter in text_of(sample) if not letter.isspace()]
    length = sum(0.5 if is_chinese(letter) else 1 / 6 for letter in letters)
    return math.exp(-length / scale) if letters else 0.0


@check
def repetition_absent(prompt: Prompt, sample: Sample, *, power: Positive = 3) -> float:
    """The share of pairs of neighbouring words that were not there before, to the `power`; twins count as old.

    Punctuation does not count, and doubled Chinese characters are no twins.
    """
    found = [word for word in split(text_of(sample)) if word[0].isalnum()]
    pairs = list(itertools.pairwise(found))
    if not pairs:
        return 1.0 if found else 0.0
    fresh = {(left, right) for left, right in pairs if left != right or is_chinese(left)}
    return math.pow(len(fresh) / len(pairs), power)


@check
def finished(prompt: Prompt, sample: Sample, *, otherwise: Share = 0.3) -> float:
    """1 where the answer came to an end by itself, `otherwise` where it was cut at the length limit."""
    return 1.0 if sample.finished else otherwise


@check
def regex(prompt: Prompt, sample: Sample, *, pattern: re.Pattern[str], otherwise: Share = 0.0) -> float:
    """1 where `pattern` is found somewhere in the text, else `otherwise`."""
    return 1.0 if pattern.search(text_of(sample)) else otherwise


@check
def facts_agree(prompt: Prompt, sample: Sample, *, vocabulary: KnownValues = None, contradiction: Share = 0.4) -> float:
    """The share of stated facts that agree with the prompt's, times `contradiction` for each that does not.

    Says nothing about the prompt's facts: 0. `vocabulary` (fact -> value -> phrases) makes wrong values noticed.
    """
    reading = read(text_of(sample), prompt, vocabulary)
    stated = len(reading.agreed) + reading.contradicted
    return len(reading.agreed) / stated * contradiction**reading.contradicted if stated else 0.0


@check
def facts_covered(
    prompt: Prompt, sample: Sample, *, weights: Weights, vocabulary: KnownValues = None, floor: Share = 0.0
) -> float:
    """The weight of the facts that are stated correctly, as a share of all `weights`; `floor` where none is."""
    agreed = read(text_of(sample), prompt, vocabulary).agreed
    share = sum(weight for fact, weight in weights.items() if fact in agreed) / sum(weights.values())
    return floor + (1 - floor) * share


@check
def both_sides(
    prompt: Prompt, sample: Sample, *, sides: tuple[str, str], vocabulary: KnownValues = None, only_one: Share = 0.5
) -> float:
    """`only_one` where exactly one of two facts, the `sides`, is mentioned; 1 where both or neither are."""
    text = text_of(sample)
    agreed = read(text, prompt, vocabulary).agreed
    if not text.strip():
        return 0.0
    return only_one if (sides[0] in agreed) != (sides[1] in agreed) else 1.0


@check
def environment_return(prompt: Prompt, sample: Sample, *, scale: Positive = 1.0) -> float:
    """The sum of the environment's own rewards over the trajectory, divided by `scale`; any number.

    Raises DataError where the environment's rewards were taken out of the sample, or where it is a text.
    """
    if sample.trajectory is None:
        raise DataError("`environment_return` was given a text", remedy="It scores trajectories of environments.")
    rewards = sample.trajectory.environment_rewards
    if not rewards and sample.trajectory.observations:
        raise DataError(
            "`environment_return` was given a trajectory without the environment's rewards",
            remedy="Only judges that are held back from training, and simulated raters, may see them.",
        )
    return math.fsum(rewards) / scale
