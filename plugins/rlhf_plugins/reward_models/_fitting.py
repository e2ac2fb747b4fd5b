"""The training loop of all reward models that learn here: deterministic, and resumed to the bit from any checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rlhf_core.errors import TrainingError
from rlhf_core.run import Run
from rlhf_plugins.reward_models._bradley_terry import batches_by_length, groups_of
from rlhf_plugins.reward_models._objectives import Objective

CHECKPOINT_STEPS = 200
"""Steps between checkpoints within an epoch; there is one after every epoch too."""
LOG_STEPS = 5
CLIP_NORM = 1.0
MOMENTUM = 0.9
"""Of SGD."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises to its full height; it falls to 0 in the rest."""


class Network(Protocol):
    """What is trained: a module that gives every answer of some rows a value."""

    scalar: torch.nn.Module

    def values(self, rows: list[Any]) -> torch.Tensor:
        """[A] or [A, K], with gradients."""
        ...


@dataclass
class State:
    """Where training stands, besides weights and moments."""

    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    epochs: int = 0
    """Epochs that are finished and measured."""

    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epochs - self.best_epoch


class Fitting:
    """One fit of `valuer.scalar` on `train`, keeping the weights of the epoch with the least `validate()`.

    `after_epoch` is called with the number of every finished epoch that another one follows.
    """

    def __init__(
        self,
        valuer: Network,
        train: Objective,
        run: Run,
        *,
        epochs: int,
        batch: int,
        lr: float,
        weight_decay: float,
        patience: int,
        validate: Callable[[], float] | None,
        after_epoch: Callable[[int], None],
        optimizer: Literal["adamw", "sgd"] = "adamw",
    ) -> None:
        self.valuer, self.scalar, self.train, self.run = valuer, valuer.scalar, train, run
        self.epochs, self.batch, self.lr, self.patience, self.validate = epochs, batch, lr, patience, validate
        self.after_epoch = after_epoch
        self.lengths = np.array([row.length for row in train.rows])
        self.groups = groups_of([row.shares for row in train.rows])
        self.steps = epochs * len(self._batches(0))
        matrices = [p for p in self.scalar.parameters() if p.ndim > 1]
        others = [p for p in self.scalar.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer: torch.optim.Optimizer
        if optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, nesterov=True)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=lr)
        self.state = State()
        self.best: dict[str, torch.Tensor] = {}

    def fit(self) -> State:
        """Train to the end, from the newest checkpoint where there is one."""
        if found := self.run.checkpoints.latest():
            self._load(found[1])
        per_epoch = self.steps // self.epochs
        while self._goes_on():
            for batch in self._batches(self.state.epochs)[self.state.step - self.state.epochs * per_epoch :]:
                self._step(batch)
                if self.state.step % CHECKPOINT_STEPS == 0 and self.state.step % per_epoch:
                    self.run.checkpoints.save(self.state.step, self._save)
            self._end_epoch()
            if self._goes_on():
                # Before the checkpoint, so that a resumed fit leaves no epoch out.
                self.after_epoch(self.state.epochs)
            self.run.checkpoints.save(self.state.step, self._save)
        if self.best:
            self.scalar.load_state_dict(self.best)
        self.scalar.eval()
        return self.state

    def _goes_on(self) -> bool:
        return self.state.epochs < self.epochs and self.state.waited() <= self.patience

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return batches_by_length(self.lengths, self.groups, self.batch, np.random.default_rng([self.run.seed, epoch]))

    def _step(self, batch: NDArray[np.int64]) -> None:
        state, device = self.state, next(self.scalar.parameters()).device
        self.scalar.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # Dropout follows from seed and step alone, so a resumed run draws the same.
            torch.manual_seed(int(np.random.SeedSequence([self.run.seed, state.step]).generate_state(1)[0]))
            values = self.valuer.values([self.train.rows[i] for i in batch])
            loss = self.train.loss(values, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.scalar.parameters(), CLIP_NORM)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingError(
                f"the reward model's loss is {loss.item():g} and its gradient {norm.item():g} in step {state.step + 1}",
                remedy="The weights are as they were before the step. Lower `reward.lr`, or check the model it "
                "starts from.",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * _schedule(state.step, self.steps)
        self.optimizer.step()
        state.step += 1
        self.run.progress(state.step, self.steps, f"loss {loss.item():.3f}")
        if state.step % LOG_STEPS == 0 or state.step == self.steps:
            figures = {"loss": loss.item(), "gradient_norm": norm.item(), "lr": self.optimizer.param_groups[0]["lr"]}
            self.run.log(figures | self.train.figures(values.detach(), batch), state.step)

    def _end_epoch(self) -> None:
        state = self.state
        state.epochs += 1
        if self.validate is None:
            state.best_epoch = state.epochs
            return
        loss = self.validate()
        self.run.log({"validation_loss": loss}, state.step)
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epochs
            self.best = {name: value.detach().clone() for name, value in self.scalar.state_dict().items()}

    def _save(self, folder: Path) -> None:
        save_file(_own(self.scalar.state_dict()), folder / "weights.safetensors")
        save_file(_own(dict(self._moments())), folder / "optimizer.safetensors")
        save_file(_own(self.best), folder / "best.safetensors")
        (folder / "state.json").write_text(json.dumps(asdict(self.state)) + "\n", encoding="utf-8")

    def _load(self, folder: Path) -> None:
        device = next(self.scalar.parameters()).device
        self.scalar.load_state_dict(load_file(folder / "weights.safetensors"))
        saved = load_file(folder / "optimizer.safetensors", device=str(device))
        self.best = load_file(folder / "best.safetensors", device=str(device))
        self.state = State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        for number, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            # AdamW keeps its count of steps on the CPU.
            self.optimizer.state[parameter] = {
                name: saved[f"{number}.{name}"].cpu() if name == "step" else saved[f"{number}.{name}"]
                for name in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
                if f"{number}.{name}" in saved
            }

    def _moments(self) -> Iterator[tuple[str, torch.Tensor]]:
        for number, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            for name, value in self.optimizer.state[parameter].items():
                yield f"{number}.{name}", value


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate in step number `step` of `steps`: linear warm-up, then linear to 0."""
    warm = max(round(WARM_UP * steps), 1)
    return min((step + 1) / warm, (steps - step) / max(steps - warm, 1), 1.0)


def _own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies without shared memory, which safetensors refuses."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
