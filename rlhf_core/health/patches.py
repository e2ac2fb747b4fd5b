"""Patch sets: problems that were found once, and that every later reward model must get right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhf_core.errors import DataError
from rlhf_core.records import Prompt, Sample

if TYPE_CHECKING:
    from rlhf_core.plugins import RewardModel


class Patch(BaseModel):
    """One example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    better: str
    worse: str
    why: str = ""
    """What went wrong, for the reader."""
    since: int = Field(0, ge=0)
    """The first round that must get it right: earlier reward models were made before it was known."""

    def words(self) -> str:
        """The example in one line."""
        why = f" ({self.why})" if self.why else ""
        return f"{_short(self.prompt)}: {_short(self.better)!r} must be above {_short(self.worse)!r}{why}"


def read_patches(path: Path) -> list[Patch]:
    """The examples of a JSONL file. Raises DataError naming the line that is none."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the patch set: {error}", where=str(path)) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(Patch.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"not a patch: {'.'.join(map(str, first['loc']))} {first['msg']}",
                where=f"{path}:{number}",
                remedy='Write {"prompt": "...", "better": "...", "worse": "...", "why": "...", "since": 0} a line.',
            ) from error
    return found


def regressions(model: RewardModel, patches: Sequence[Patch]) -> list[Patch]:
    """The examples whose better answer `model` does not score above the worse one; an equal score is not enough."""
    prompts = [Prompt(text=patch.prompt) for patch in patches]
    better = [Sample(prompt_id=prompt.id, text=patch.better) for prompt, patch in zip(prompts, patches, strict=True)]
    worse = [Sample(prompt_id=prompt.id, text=patch.worse) for prompt, patch in zip(prompts, patches, strict=True)]
    scores = model.score([*prompts, *prompts], [*better, *worse]).mean
    n = len(patches)
    return [patch for i, patch in enumerate(patches) if not scores[i] > scores[n + i]]


def _short(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
