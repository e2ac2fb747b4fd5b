"""Spreading weights over processes as accelerate was told to: by torch's FSDP or by DeepSpeed."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

import torch

from rlhf_core.errors import TrainingError
from rlhf_core.lm.sharding import is_spread, spread
from rlhf_core.lm.wearing import Wearing
from rlhf_plugins import zero
from rlhf_plugins.trainee import Trainee

if TYPE_CHECKING:
    from accelerate import Accelerator

_told: list[Accelerator] = []
"""Who knows the settings, where weights are to be spread."""


def join() -> Accelerator:
    """Become one of the processes that accelerate launched; what is trained from now on is spread over them if asked.

    To be called before models are loaded. Raises TrainingError where the settings ask for what is not done here.
    """
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin

    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return _join_deepspeed()
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return Accelerator()
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise TrainingError(
            "accelerate is set to version 1 of FSDP, which flattens weights beyond recognition",
            where="optimize.accelerate",
            remedy="Set `fsdp_version: 2` in its fsdp_config; `accelerate to-fsdp2` converts a file.",
        )
    # Every process has loaded the whole model by then, from the disk of the one that started it.
    plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
    if plugin.activation_checkpointing or os.environ.get("FSDP_OFFLOAD_PARAMS") == "true":
        raise TrainingError(
            "accelerate is set to checkpoint activations or to offload weights",
            where="optimize.accelerate",
            remedy="Turn fsdp_activation_checkpointing and fsdp_offload_params off; `gradient_checkpointing: true` and "
            "`micro_batch` in the pipeline save memory.",
        )
    accelerator = Accelerator(fsdp_plugin=plugin)
    # accelerate itself keeps the settings on accelerators alone; what they mean is the same on a CPU.
    accelerator.state.fsdp_plugin = plugin
    _told.append(accelerator)
    return accelerator


def _join_deepspeed() -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations import unset_hf_deepspeed_config

    try:
        plugin = DeepSpeedPlugin(zero3_init_flag=False)
    except ValueError as error:
        raise TrainingError(
            f"accelerate refuses its settings of DeepSpeed: {error}",
            where="optimize.accelerate",
            remedy="Let `accelerate config` write them anew.",
        ) from error
    zero.settings(plugin.deepspeed_config, torch.float32)
    accelerator = Accelerator(deepspeed_plugin=plugin)
    # Models are loaded whole: what becomes of them first, a value model for example, knows nothing of parts.
    unset_hf_deepspeed_config()
    _told.append(accelerator)
    return accelerator


def is_asked() -> bool:
    """Whether weights are to be spread in this process."""
    return bool(_told)


def trained(module: torch.nn.Module, model: Any, dtype: torch.dtype, *, lr: float, max_grad_norm: float) -> Trainee:
    """`module` in training, with the weights of its part `model`, a transformer, spread where that is asked."""
    if asked := _asked_of_deepspeed():
        return zero.ZeroTrainee(module, model, asked, dtype, lr=lr, max_grad_norm=max_grad_norm)
    shard(model, dtype)
    return Trainee(module, lr=lr, max_grad_norm=max_grad_norm)


def shard(model: Any, dtype: torch.dtype) -> None:
    """Spread the weights of `model` where that is asked; from then on it computes in `dtype` by itself.

    Nothing happens otherwise, or where that was done before, to `model` or the base that it shares.
    """
    if not _told or isinstance(model, Wearing) or is_spread(model):
        return
    if asked := _asked_of_deepspeed():
        # The lower stages spread only what training adds to a model.
        if asked["zero_optimization"]["stage"] == 3:
            zero.Zero(model.requires_grad_(False), zero.settings(asked, dtype))
        return
    from accelerate.utils import fsdp2_prepare_model
    from torch.distributed.fsdp import MixedPrecisionPolicy

    accelerator = _told[0]
    asked = accelerator.state.fsdp_plugin
    plugin = copy.copy(asked)
    plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    plugin.transformer_cls_names_to_wrap = asked.transformer_cls_names_to_wrap or _layers(model)
    try:
        accelerator.state.fsdp_plugin = plugin
        fsdp2_prepare_model(accelerator, model)
    except ValueError as error:
        raise TrainingError(
            str(error),
            where="optimize.fsdp",
            remedy=f"Set transformer_cls_names_to_wrap to what this model is made of: {_layers(model)}.",
        ) from error
    finally:
        accelerator.state.fsdp_plugin = asked
    spread(model, after_forward=bool(plugin.reshard_after_forward))


def _asked_of_deepspeed() -> dict[str, Any]:
    """DeepSpeed's settings; empty where it is not asked."""
    plugin = _told[0].state.deepspeed_plugin if _told else None
    return {} if plugin is None else plugin.deepspeed_config


def _layers(model: Any) -> list[str]:
    """The classes of the layers that `model` says to keep together."""
    named = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return sorted(named & {type(part).__name__ for part in model.modules()})
