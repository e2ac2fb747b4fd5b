"""The LM Evaluation Harness on a policy's language model. Imports the harness: loaded only while evaluating."""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing

from rlhf_core.errors import DataError
from rlhf_core.lm.model import LanguageModel


def harness_results(lm: LanguageModel, config: Any, seed: int) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Figures of every task, and the number of items in each. Raises DataError where a task is not there or fails."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks = known_tasks(config.folder, config.tasks)
    if missing := [name for name in config.tasks if name not in tasks.all_tasks]:
        raise DataError(
            f"the harness knows no task `{missing[0]}`",
            remedy="`lm-eval ls tasks` lists its own; those of your own stand in `folder`.",
        )
    mixed = None if lm.compute_dtype == next(lm.model.parameters()).dtype else lm.compute_dtype
    reader = HFLM(
        pretrained=lm.model,
        tokenizer=reading(lm.tokenizer),
        device=str(lm.device),
        batch_size=config.batch_size,
        mixed_precision_dtype=mixed,
        add_bos_token=lm.tokenizer.bos_token_id is not None,
    )
    with _own_randomness():
        try:
            results = simple_evaluate(
                reader,
                tasks=list(config.tasks),
                num_fewshot=config.examples,
                limit=config.limit,
                apply_chat_template=config.chat,
                log_samples=False,
                bootstrap_iters=1000,
                task_manager=tasks,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise DataError(
                f"the harness cannot run {', '.join(config.tasks)}: {type(error).__name__}: {reason}",
                remedy="Most tasks load their data from the Hugging Face hub; without the network give files of your "
                "own in `folder`.",
            ) from error
    figures = {**results["results"], **results.get("groups", {})}
    if parted := [name for name in config.tasks if name not in figures]:
        raise DataError(
            f"`{parted[0]}` is a name for several tasks", remedy=f"Name some of them: {', '.join(sorted(figures))}."
        )
    return figures, {name: int(size["effective"]) for name, size in results.get("n-samples", {}).items()}


def known_tasks(folder: Path | None, wanted: Iterable[str]) -> TaskManager:
    """The tasks of the folder; with the harness's own, whose thousands of files take seconds, only where needed."""
    if folder is not None:
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if all(name in own.all_tasks for name in wanted):
            return own
    return TaskManager(include_path=None if folder is None else str(folder))


def reading(tokenizer: Any) -> Any:
    """A copy that puts the BOS before every text, where there is one, as the policy's own format does."""
    made, bos = copy.deepcopy(tokenizer), tokenizer.bos_token
    if bos is not None and made("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        first = [(bos, tokenizer.bos_token_id)]
        made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=first)
    made.split_special_tokens = True
    return made


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """The harness seeds the generators of the whole process; they go on from where they were."""
    before, numpy_before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)
