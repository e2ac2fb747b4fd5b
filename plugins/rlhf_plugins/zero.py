"""Weights in the hands of DeepSpeed (ZeRO; Rajbhandari et al. 2020), as accelerate's configuration asks for it.

Stage 1 spreads the optimizer's moments and float32 weights over the processes, stage 2 the gradients too, stage 3 the
weights that are computed with as well; each can be offloaded. What the pipeline says (`lr`, `max_grad_norm`,
`micro_batch`, the policy's `dtype`) goes before what DeepSpeed's settings say of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.forward import forward
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.lm.sharding import entrance, fill, run_by
from rlhf_plugins import world
from rlhf_plugins.trainee import NotFiniteError, Trainee

WHERE = "optimize.accelerate"


def settings(asked: Mapping[str, Any], dtype: torch.dtype, max_grad_norm: float = 0.0) -> dict[str, Any]:
    """DeepSpeed's configuration: what is `asked` without what is `auto`, and the pipeline's own.

    Raises TrainingError where it asks for what is not done here.
    """
    zero = asked.get("zero_optimization", {})
    if zero.get("stage", 0) == 0:
        raise TrainingError(
            "DeepSpeed's stage 0 spreads nothing",
            where=WHERE,
            remedy="Set zero_stage to 1, 2 or 3, or distributed_type to MULTI_GPU.",
        )
    own = {"optimizer", "scheduler"} & asked.keys()
    if own:
        raise TrainingError(
            f"DeepSpeed's settings name an {' and a '.join(sorted(own))} of their own",
            where=WHERE,
            remedy="Drop them: the learning rate and how it falls are the pipeline's, under `optimize:`.",
        )
    if asked.get("fp16", {}).get("enabled") is True:
        raise TrainingError(
            "DeepSpeed is set to float16, whose range is too small for probability ratios",
            where=WHERE,
            remedy="Drop fp16; the policy's `dtype` says what is computed in (bfloat16 or float32).",
        )
    fixed: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Every step says itself when it has all gradients.
        "managed_gradient_accumulation": False,
        "gradient_clipping": max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
    if dtype == torch.bfloat16:
        fixed |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    dropped = {"train_batch_size", "fp16", "bf16", "amp"}
    return {key: value for key, value in _said(asked).items() if key not in dropped} | fixed


def _said(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked` without what DeepSpeed or accelerate is to find out."""
    plain = {key: _said(value) if isinstance(value, Mapping) else value for key, value in asked.items()}
    return {key: value for key, value in plain.items() if value != "auto"}


class Zero:
    """DeepSpeed's engine in the place of a model; its `rlhf_core.lm.sharding.Engine`."""

    def __init__(self, model: Any, config: dict[str, Any], optimizer: torch.optim.Optimizer | None = None) -> None:
        import deepspeed

        self.stage = config["zero_optimization"]["stage"]
        self.trains = optimizer is not None
        try:
            self.engine, self.optimizer, *_ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=config, dist_init_required=False
            )
        except (ValueError, AssertionError) as error:
            raise TrainingError(
                f"DeepSpeed refuses its settings: {error}", where=WHERE, remedy="Look at zero_optimization in them."
            ) from error
        run_by(model, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """A forward pass that a backward pass may follow."""
        return self.engine(*arguments, **options)

    @contextlib.contextmanager
    def gathered(self, model: Any) -> Iterator[None]:
        """Of stage 3 the weights are brought together; of the others every process has them anyway."""
        if self.stage < 3:
            yield
            return
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            # They would give each layer's weights back as soon as it has run.
            remove_hooks(self.engine)
            try:
                yield
            finally:
                add_hooks(self.engine)

    def shape(self, weight: Tensor) -> torch.Size:
        """Of all of `weight`."""
        return getattr(weight, "ds_shape", weight.shape)

    def whole(self, weight: Tensor) -> Tensor:
        """The optimizer's float32 weight; of one that is not trained what is computed with."""
        from deepspeed.utils import safe_get_full_fp32_param

        if self.trains and weight.requires_grad:
            found: Tensor = safe_get_full_fp32_param(weight)
            return found.detach()
        with self._computed_with(weight):
            return weight.detach().float().clone()

    def fill(self, weight: Tensor, value: Tensor) -> None:
        """Both what the optimizer has of `weight` and what is computed with."""
        from deepspeed import utils

        value = value.to(weight.device)
        if self.trains and weight.requires_grad:
            if self.stage < 3:
                utils.safe_set_full_fp32_param(weight, value.float())
            else:
                utils.safe_set_local_fp32_param(weight, self._part(weight, value.float()))
        with self._computed_with(weight, writer=0):
            weight.data.copy_(value)

    def moment(self, weight: Tensor, key: str) -> Tensor:
        """All of what the optimizer remembers of `weight`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found: Tensor = safe_get_full_optimizer_state(weight, key)
        return found

    def set_moment(self, weight: Tensor, key: str, value: Tensor) -> None:
        """Let the optimizer remember the `value` that every process holds whole."""
        from deepspeed import utils

        if self.stage < 3:
            utils.safe_set_full_optimizer_state(weight, value, key)
        else:
            utils.safe_set_local_optimizer_state(weight, self._part(weight, value), key)

    def _part(self, weight: Any, value: Tensor) -> Tensor:
        """This process's part of `value`, as stage 3 cuts it: DeepSpeed's own cut goes wrong where there is padding."""
        size = weight.partition_numel()
        padded = torch.nn.functional.pad(value.flatten(), (0, size * world.size() - value.numel()))
        return padded.narrow(0, size * world.rank(), size)

    def _computed_with(self, weight: Tensor, writer: int | None = None) -> contextlib.AbstractContextManager[Any]:
        if self.stage < 3:
            return contextlib.nullcontext()
        import deepspeed

        gathered: contextlib.AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([weight], writer)
        return gathered


class ZeroTrainee(Trainee):
    """The trainable weights of `module`, all of which are in its part `model`, in the hands of an engine."""

    def __init__(
        self,
        module: torch.nn.Module,
        model: Any,
        asked: Mapping[str, Any],
        dtype: torch.dtype,
        *,
        lr: float,
        max_grad_norm: float,
    ) -> None:
        super().__init__(module, lr=lr, max_grad_norm=max_grad_norm)
        self.model = model
        self.adam = self.optimizer
        rounds = dtype == torch.bfloat16
        exact = {name: weight.detach().cpu() for name, weight in self.weights.items()} if rounds else {}
        self.zero = Zero(model, settings(asked, dtype, max_grad_norm), self.adam)
        # It has rounded them before it made its own float32 ones.
        for name, value in exact.items():
            fill(self.weights[name], value)
        self.engine, self.optimizer = self.zero.engine, self.zero.optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of all processes, of which the engine takes the mean."""
        self.engine.backward(loss * world.size())

    def forget(self) -> None:
        """Take a step that the engine refuses: it forgets what it refuses, and nothing else."""
        self._touch(math.nan)

    def step(self, loss: float) -> float:
        """See the base class. The engine looks at the gradients of all processes and refuses what is not finite."""
        if not math.isfinite(loss):
            raise NotFiniteError
        self.engine.step()
        if not self.engine.was_step_applied():
            raise NotFiniteError
        return float(self.engine.get_global_grad_norm())

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """See the base class; whole."""
        if not self.adam.state:
            return
        steps = next(state["step"] for state in self.adam.state.values())
        for name, weight in self.weights.items():
            yield f"{name}|step", steps.clone()
            for key in ("exp_avg", "exp_avg_sq"):
                yield f"{name}|{key}", self.zero.moment(weight, key)

    def set_moments(self, found: dict[str, Tensor]) -> None:
        """See the base class."""
        if not found:
            return
        # Without gradients: the moments come into being, and the weights stay as they are.
        self._touch(0.0)
        for full, value in found.items():
            name, _, key = full.rpartition("|")
            if key == "step":
                for state in self.adam.state.values():
                    state["step"].copy_(value)
            else:
                self.zero.set_moment(self.weights[name], key, value)

    def _touch(self, factor: float) -> None:
        """A step on gradients that are all 0, or not finite."""
        ids = torch.ones(1, 2, dtype=torch.long, device=next(iter(self.weights.values())).device)
        if isinstance(self.model, ScalarHead):
            found = entrance(self.model)(ids, torch.ones_like(ids))
        else:
            found = forward(self.model, ids, torch.ones_like(ids)).logits
        self.engine.backward(found.float().sum() * factor)
        self.engine.step()
