"""What a plugin may know and say about the run it works in: seed, progress, metrics, checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_core.files import sync_tree
from rlhf_core.metrics import Metric


class Checkpoints:
    """Checkpoints of one long piece of work: the newest complete one survives a kill at any moment.

    Each is a folder; it is written beside its place and moved there in one step, so a half-written one is never seen.
    With no folder given nothing is kept (work that needs no resuming).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the newest complete checkpoint."""
        if self.folder is None or not self.folder.is_dir():
            return None
        steps = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
        return (max(steps), self.folder / str(max(steps))) if steps else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Let `write` fill a fresh folder, then make it the checkpoint of `step` and drop the older ones."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".draft-{step}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            write(draft)
            sync_tree(draft)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        final = self.folder / str(step)
        if final.exists():
            shutil.rmtree(final)
        draft.replace(final)
        for old in self.folder.iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def clear(self) -> None:
        """Forget every checkpoint: the work is done and its result is stored."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Run:
    """What a plugin sees of the stage it runs in. This base class says nothing to nobody: tests and scripts use it.

    The flows hand in a subclass that draws progress and logs to MLflow.
    """

    def __init__(self, seed: int = 0, checkpoints: Checkpoints | None = None) -> None:
        self.seed = seed
        """The seed of this stage; all randomness of a plugin follows from it."""
        self.checkpoints = checkpoints or Checkpoints()
        """Where long work leaves checkpoints and finds them after a kill."""
        self.store_url = ""
        """The run's feedback store, for annotators who wait for people; empty where there is none."""
        self.mlflow_uri = ""
        """The run's MLflow store, for annotators who are asked there; empty where there is none."""
        self.pipeline = ""
        """Name of the pipeline."""
        self.round = 0
        """Number of the round."""
        self.on_epoch: Callable[[int, Any], None] = lambda epoch, model: None
        """Called by a reward model that learns in epochs with the number of each that another one follows, and itself,
        which scores as far as it has learnt. What it raises ends the fit."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one training step."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Say how far the work is; `note` is a few words for the progress line."""

    def note(self, text: str) -> None:
        """Say something worth knowing once: a fallback taken, rows left out."""

    def attempt(self, name: str, settings: Mapping[str, object]) -> Run:
        """A run below this one, for one of several attempts at the same work: the same seed, so that attempts differ
        by their `settings` alone, and checkpoints in a folder `name` of their own.
        """
        folder = self.checkpoints.folder
        return Run(self.seed, Checkpoints(folder / name if folder is not None else None))

    def end(self, metrics: Mapping[str, Metric], error: BaseException | None = None) -> None:
        """Say what an attempt came to; with `error`, why it came to nothing. Its checkpoints are forgotten."""
        self.checkpoints.clear()
