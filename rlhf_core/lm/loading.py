"""Getting models and tokenizers off the disk or the hub, safely, onto the accelerator where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_core.errors import DataError

if TYPE_CHECKING:
    import torch

Quantised = Literal["4bit"]


def load_base(base: Mapping[str, Any], dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """The model that adapters sit on, as `LanguageModel.base` names it, on the accelerator where there is one.

    Raises DataError where it is not there, or cannot be quantised here.
    """
    name, options = base["name"], {"trust_remote_code": trust_remote_code, "revision": base["revision"]}
    if base.get("quantise") is None:
        return load_model(name, dtype, **options).to(best_device())
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise DataError(
            f"`{name}` is to be kept in {base['quantise']}, which takes the package bitsandbytes",
            remedy='Install it (pip install "rlhf-pipeline[quantised]"; meant for GPUs), or drop `quantise`.',
        )
    # NF4 with doubly quantised scales, computed in `dtype` (QLoRA; Dettmers et al. 2023).
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return load_model(name, dtype, quantization_config=config, device_map={"": best_device()}, **options)


def load_model(name_or_folder: str | Path, dtype: torch.dtype, *, revision: str | None = None, **options: Any) -> Any:
    """A causal language model, from safetensors. Raises DataError where there is none."""
    from transformers import AutoModelForCausalLM

    quiet()
    with explained(name_or_folder):
        # Without safetensors a checkpoint is a pickle, which runs whatever its author put in.
        return AutoModelForCausalLM.from_pretrained(
            str(name_or_folder), dtype=dtype, use_safetensors=True, revision=revision or "main", **options
        )


def load_config(name_or_folder: str | Path, *, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """What the model says of its text part: width, context. Raises DataError where there is none."""
    from transformers import AutoConfig

    options = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    with explained(name_or_folder):
        return AutoConfig.from_pretrained(str(name_or_folder), **options).get_text_config()


def load_encoder(name_or_folder: str | Path) -> tuple[Any, Any]:
    """An encoder such as BERT, without a head, in float32 on the accelerator where there is one, and its tokenizer,
    whose classification and separation tokens then begin and end a text. Raises DataError where there is none.
    """
    from transformers import AutoModel

    quiet()
    tokenizer = load_tokenizer(name_or_folder, trust_remote_code=False)
    with explained(name_or_folder):
        model = AutoModel.from_pretrained(str(name_or_folder), use_safetensors=True)
    if tokenizer.eos_token_id is None:
        tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    return model.float().to(best_device()), tokenizer


def load_tokenizer(name_or_folder: str | Path, *, trust_remote_code: bool, revision: str | None = None) -> Any:
    """The model's tokenizer. Raises DataError where there is none."""
    from transformers import AutoTokenizer

    options = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    with explained(name_or_folder):
        return AutoTokenizer.from_pretrained(str(name_or_folder), **options)


@contextlib.contextmanager
def explained(name_or_folder: str | Path, kind: str = "model") -> Iterator[None]:
    """Errors of loading a `kind` of model inside, in the words of someone who can do something about them."""
    where = str(name_or_folder)
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        if "trust_remote_code" in str(error):
            remedy = "It brings its own code. Read it; if you trust it, set trust_remote_code: true."
        elif Path(where).is_dir():
            remedy = "A model folder holds config.json, the tokenizer's files and weights as .safetensors."
        else:
            remedy = (
                "Give a folder that exists or a name on the Hugging Face hub (which needs the network once, later the "
                "cache is enough; gated models need HF_TOKEN)"
            ) + (", or `starter`, which needs neither." if kind == "model" else ".")
        raise DataError(f"cannot load the {kind} `{where}`: {reason}", remedy=remedy) from error


def quiet() -> None:
    """No progress bars from transformers: they would run through the run's own. Downloads keep theirs."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def best_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
