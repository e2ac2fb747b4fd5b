"""Hugging Face trainers in this house: their checkpoints go to the run, and the model is given back as it was.

Imports transformers: loaded only while training.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhf_core.lm.lora import is_adapted
from rlhf_core.lm.model import LanguageModel
from rlhf_core.run import Run


class CheckpointsToRun(TrainerCallback):  # type: ignore[misc]
    """Moves each of the trainer's checkpoints, once it is complete, to where the run keeps them."""

    def __init__(self, run: Run, scratch: Path) -> None:
        self.run = run
        self.scratch = scratch

    def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Called when the trainer has written everything."""
        written = self.scratch / f"checkpoint-{state.global_step}"
        # The pickled arguments are never read back, and no checkpoint of ours holds pickles.
        copy = partial(shutil.copytree, written, dirs_exist_ok=True, ignore=shutil.ignore_patterns("training_args.bin"))
        self.run.checkpoints.save(state.global_step, copy)
        shutil.rmtree(written)


def quiet_settings(lm: LanguageModel, run: Run, scratch: Path) -> dict[str, Any]:
    """Settings of any trainer: checkpoints on where the run keeps them; off whatever is chatty or needs the network."""
    return {
        "output_dir": str(scratch),
        "seed": run.seed,
        "save_strategy": "steps" if run.checkpoints.folder is not None else "no",
        "remove_unused_columns": False,
        "use_cpu": lm.device.type == "cpu",
        "dataloader_pin_memory": lm.device.type != "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }


def undo_patches(lm: LanguageModel) -> None:
    """Give the model back as it was: TRL replaces its `forward`, the trainer switches dropout on."""
    plain = lm.model.get_base_model() if is_adapted(lm.model) else lm.model
    plain.__dict__.pop("forward", None)
    lm.model.__dict__.pop("forward", None)
    lm.model.eval()
