"""A reward or cost model as a content filter: texts in, verdicts out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.health.threshold import Threshold, threshold_for_precision
from rlhf_core.plugins import RewardModel, Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import Prompt, Sample
from rlhf_flows.stages.artifacts_io import remembered_use

ANYTHING = "Say something."
"""The prompt of texts that answer none."""


class Moderator:
    """Scores texts by how harmful they are: a criterion of the model, or minus its reward."""

    def __init__(self, use: Use, folder: Path | None, criterion: str | None) -> None:
        if folder is not None and (folder / "reward").is_dir():
            folder = folder / "reward"  # as in the artifacts of a campaign
        self.model: RewardModel = Registry().create("reward_models", remembered_use(folder, use) if folder else use)
        self.criterion = criterion
        if folder is not None:
            self.model.load(folder)

    def harm(self, rows: list[dict[str, Any]]) -> list[float]:
        """One number a row, the higher the worse. Raises RlhfError where the model has no such criterion."""
        prompts = [Prompt(text=str(row.get("prompt") or ANYTHING)) for row in rows]
        samples = [
            Sample(prompt_id=prompt.id, text=str(row["text"])) for prompt, row in zip(prompts, rows, strict=True)
        ]
        scores = self.model.score(prompts, samples)
        if self.criterion is None:
            return [-value for value in scores.mean]
        if self.criterion not in scores.criteria:
            raise RlhfError(
                f"the model has no criterion `{self.criterion}`",
                remedy=f"It has: {', '.join(scores.criteria) or 'none; leave --criterion out for minus its reward'}.",
            )
        return scores.criteria[self.criterion]

    def choose(self, labels: Path, precision: float) -> Threshold:
        """The threshold for a wanted precision on labelled rows (`text`, `harmful`, perhaps `prompt`), which must be
        others than those that the model learnt from. Raises DataError where no threshold reaches it.
        """
        with labels.open(encoding="utf-8") as file:
            rows = list(read_rows(file, str(labels)))
        if missing := [number for number, row in enumerate(rows, start=1) if "harmful" not in row]:
            raise DataError("a labelled row needs `harmful`: true or false", where=f"{labels}:{missing[0]}")
        found = threshold_for_precision(
            np.array(self.harm(rows)), np.array([bool(row["harmful"]) for row in rows]), precision
        )
        if found is None:
            raise DataError(
                f"no threshold has a precision of {precision:g} on these {len(rows)} examples",
                where=str(labels),
                remedy="Want less, or bring a better model or more examples.",
            )
        return found

    def verdicts(self, rows: Iterable[dict[str, Any]], threshold: float, batch: int) -> Iterator[dict[str, Any]]:
        """The rows with `score` and `flagged`, as soon as `batch` of them are there."""
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) >= batch:
                yield from self._judged(waiting, threshold)
                waiting = []
        if waiting:
            yield from self._judged(waiting, threshold)

    def _judged(self, rows: list[dict[str, Any]], threshold: float) -> Iterator[dict[str, Any]]:
        for row, score in zip(rows, self.harm(rows), strict=True):
            yield {**row, "score": score, "flagged": score >= threshold}


def read_rows(lines: Iterable[str], where: str) -> Iterator[dict[str, Any]]:
    """Lines of JSON objects with a `text`, or of plain text. Raises DataError naming a line that is neither."""
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            yield {"text": line}
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"this line is no JSON object: {error}", where=f"{where}:{number}") from error
        if not isinstance(row.get("text"), str):
            raise DataError("a JSON object needs a `text`", where=f"{where}:{number}")
        yield row
