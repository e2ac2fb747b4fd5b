"""A causal language model with its tokenizer and prompt format."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from rlhf_core.errors import DataError
from rlhf_core.lm import lora as adapters
from rlhf_core.lm.text import PromptFormat, before_stop

if TYPE_CHECKING:
    import torch

    from rlhf_core.lm.lora import Lora
    from rlhf_core.lm.rollout import Rollouts
    from rlhf_core.lm.vllm_server import VllmServer
    from rlhf_core.records import Prompt

DESCRIPTION = "language_model.json"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantised = Literal["4bit"]


class LanguageModel:
    """Model, tokenizer and prompt format in one hand; everything that turns prompts into tensors and back."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_prompt_tokens: int,
        max_new_tokens: int,
        compute_dtype: torch.dtype | None = None,
        base: dict[str, Any] | None = None,
    ) -> None:
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and max_prompt_tokens + max_new_tokens > context:
            raise DataError(
                f"max_prompt_tokens {max_prompt_tokens} and max_new_tokens {max_new_tokens} are together more than "
                f"the {context} tokens the model can see",
                remedy=f"Make their sum at most {context}.",
            )
        self.model = model.eval()
        self.format = PromptFormat(tokenizer, max_prompt_tokens)
        self.max_new_tokens = max_new_tokens
        self.compute_dtype = compute_dtype or next(model.parameters()).dtype
        self.base = base
        """Where the weights came from, `name` and `revision`; None for a starter, which was made here."""
        self.engine: VllmServer | None = None
        """Who samples instead of this process."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        max_prompt_tokens: int,
        max_new_tokens: int,
        dtype: Dtype = "auto",
        lora: Lora | None = None,
        quantise: Quantised | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
    ) -> Self:
        """Load a model by its name on the hub or from a folder, onto the accelerator where there is one.

        All weights trained: they are kept in float32 and only computed with in `dtype` (see `autocast`), because
        bfloat16 weights swallow small updates. With `lora` the frozen base is kept in `dtype`, or `quantise`d.
        Raises DataError where there is no such model or it is no causal language model.
        """
        import torch

        width = _width(name_or_folder, trust_remote_code=trust_remote_code, revision=revision)
        compute = compute_dtype(dtype, width)
        base: dict[str, Any] = {
            "name": str(Path(name_or_folder).resolve()) if Path(name_or_folder).is_dir() else str(name_or_folder),
            "revision": revision,
        }
        if quantise is not None:
            if lora is None:
                raise DataError(f"a {quantise} model cannot be trained itself", remedy="Train adapters: add `lora`.")
            base["quantise"] = quantise
        tokenizer = _load_tokenizer(name_or_folder, trust_remote_code=trust_remote_code, revision=revision)
        model = load_base(base, compute if lora else torch.float32, trust_remote_code=trust_remote_code)
        base["revision"] = getattr(model.config, "_commit_hash", None)
        if lora is not None:
            model = adapters.add_adapters(model, lora).to(model.device)
        return cls(
            model,
            tokenizer,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            compute_dtype=compute,
            base=base,
        )

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.format.tokenizer

    @property
    def max_prompt_tokens(self) -> int:
        """The most tokens a prompt may have; longer ones lose their beginning."""
        return self.format.max_prompt_tokens

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return self.format.eos_id

    @property
    def pad_id(self) -> int:
        """The token that fills up rows; always masked."""
        return self.format.pad_id

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in `compute_dtype` inside; does nothing where the weights are of that type already.

        Sampling, scoring and training of one model must all happen inside, or their log-probs disagree.
        """
        from rlhf_core.lm.precision import computing_in

        return computing_in(self.model, self.compute_dtype)

    def encode(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded token ids and attention mask, both [B, P] int64, on the model's device.

        A prompt of more than `max_prompt_tokens` keeps its end (and the BOS); `format.cut` counts them.
        """
        rows = self.format.prompt_tokens(prompts)
        return _padded(rows, self.pad_id, left=True, device=self.device)

    def encode_pairs(
        self, prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prompt, answer and EOS of each pair in one row, padded on the right.

        Returns ids [B, L] int64, attention mask [B, L] int64 and answer mask [B, L] bool, true on the answer and its
        EOS. Answers are cut to `max_new_tokens` tokens, EOS included; a cut answer has no EOS.
        """
        import torch

        asked = self.format.prompt_tokens(prompts)
        answered = self.answer_tokens(texts, prompts)
        rows = [[*prompt, *answer] for prompt, answer in zip(asked, answered, strict=True)]
        ids, mask = _padded(rows, self.pad_id, left=False, device=self.device)
        columns = torch.arange(ids.shape[1], device=self.device)
        starts = torch.tensor([len(prompt) for prompt in asked], device=self.device).unsqueeze(1)
        return ids, mask, (columns >= starts) & mask.bool()

    def answer_tokens(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens a policy would sample to say `texts[i]` to `prompts[i]`: EOS last, at most `max_new_tokens`."""
        return [tokens[: self.max_new_tokens] for tokens in self.format.answer_tokens(texts, prompts)]

    def rollout(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], stop: Sequence[str] = (), **sampling: Any
    ) -> Rollouts:
        """One sampled answer to each prompt, from its own random stream; an answer ends after any string of `stop`.

        `sampling` are options of `lm.rollout.rollout`: temperature, top_k, top_p, min_new_tokens.
        """
        if self.engine is not None:
            return self.engine.rollout(self, prompts, seeds=seeds, stop=stop, **sampling)
        from rlhf_core.lm.rollout import rollout

        ids, mask = self.encode(prompts)
        limits = {"max_new_tokens": self.max_new_tokens, "eos_id": self.eos_id, "pad_id": self.pad_id}
        stops = self.format.ends_with(stop) if stop else None
        with self.autocast():
            return rollout(self.model, ids, mask, seeds=seeds, stops=stops, **limits, **sampling)

    def decode(self, tokens: Any, *, stop: Sequence[str] = ()) -> list[str]:
        """The text of each answer in `tokens` (a tensor [B, T] or token lists): no special tokens, stripped.

        Of a text with a string of `stop` in it, what stands before.
        """
        texts = self.format.decode(tokens)
        return [before_stop(text, stop) for text in texts] if stop else texts

    def save(self, folder: Path) -> None:
        """Write a Hugging Face model folder (safetensors) with its tokenizer.

        With adapters: the adapters, and the name of the model below them. Equal models write equal bytes, so that
        the digest of the folder says whether anything changed.
        """
        quiet()
        folder.mkdir(parents=True, exist_ok=True)
        if adapters.is_adapted(self.model):
            adapters.save_adapters(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        _forget_origin(folder / "tokenizer_config.json")
        description = {
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_new_tokens": self.max_new_tokens,
            "compute_dtype": str(self.compute_dtype).removeprefix("torch."),
            "base": self.base,
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> Self:
        """What `save` wrote, ready to be used and trained further. Raises DataError where it is not there."""
        import torch

        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(
                f"no saved language model in {folder}",
                remedy="Load other folders through LanguageModel.from_pretrained.",
            ) from error
        compute = getattr(torch, description["compute_dtype"])
        base = description["base"]
        if (folder / adapters.ADAPTERS).is_dir():
            model = adapters.load_adapters(load_base(base, compute, trust_remote_code=trust_remote_code), folder)
        else:
            model = _load_model(folder, torch.float32, trust_remote_code=trust_remote_code).to(best_device())
        return cls(
            model,
            _load_tokenizer(folder, trust_remote_code=trust_remote_code),
            max_prompt_tokens=description["max_prompt_tokens"],
            max_new_tokens=description["max_new_tokens"],
            compute_dtype=compute,
            base=base,
        )


def load_base(base: Mapping[str, Any], dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """The model that adapters sit on, as `LanguageModel.base` names it, on the accelerator where there is one.

    Raises DataError where it is not there, or cannot be quantised here.
    """
    name, options = base["name"], {"trust_remote_code": trust_remote_code, "revision": base["revision"]}
    if base.get("quantise") is None:
        return _load_model(name, dtype, **options).to(best_device())
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
    return _load_model(name, dtype, quantization_config=config, device_map={"": best_device()}, **options)


def _load_model(name_or_folder: str | Path, dtype: torch.dtype, *, revision: str | None = None, **options: Any) -> Any:
    """A causal language model; errors in the words of someone who can do something about them."""
    from transformers import AutoModelForCausalLM

    quiet()
    with _explained(name_or_folder):
        # Without safetensors a checkpoint is a pickle, which runs whatever its author put in.
        return AutoModelForCausalLM.from_pretrained(
            str(name_or_folder), dtype=dtype, use_safetensors=True, revision=revision or "main", **options
        )


def _width(name_or_folder: str | Path, *, trust_remote_code: bool, revision: str | None) -> int:
    """Size of the model's hidden states."""
    from transformers import AutoConfig

    options = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    with _explained(name_or_folder):
        width: int = AutoConfig.from_pretrained(str(name_or_folder), **options).get_text_config().hidden_size
    return width


def _load_tokenizer(name_or_folder: str | Path, *, trust_remote_code: bool, revision: str | None = None) -> Any:
    from transformers import AutoTokenizer

    options = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    with _explained(name_or_folder):
        return AutoTokenizer.from_pretrained(str(name_or_folder), **options)


@contextlib.contextmanager
def _explained(name_or_folder: str | Path) -> Iterator[None]:
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
                "Give a folder that exists, a name on the Hugging Face hub (which needs the network once, later the "
                "cache is enough; gated models need HF_TOKEN), or `starter`, which needs neither."
            )
        raise DataError(f"cannot load the model `{where}`: {reason}", remedy=remedy) from error


def _forget_origin(path: Path) -> None:
    """Take out of a tokenizer's config how it was loaded, which says nothing about it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in config.items() if name not in ("is_local", "local_files_only")}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _padded(
    rows: Sequence[Sequence[int]], pad: int, *, left: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    length = max(map(len, rows), default=0)
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.int64)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)


def quiet() -> None:
    """No progress bars from transformers: they would run through the run's own. Downloads keep theirs."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def best_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    import torch

    return (
        torch.accelerator.current_accelerator() or torch.device("cpu")
        if torch.accelerator.is_available()
        else (torch.device("cpu"))
    )


WIDE = 256
"""Width of the hidden states from which products in bf16 are worth what is cast for them, on CPUs without AMX."""


def choose_dtype(width: int | None = None) -> tuple[torch.dtype, str]:
    """The number format to compute in on this machine, and why, in words.

    `width` is that of the model's hidden states (None: a wide one). The choice follows from the hardware and the model
    alone, never from a timing, so that a resumed run computes as before.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"bf16: {name} computes in it"
        return torch.float32, f"fp32: {name} has no bf16"
    can = torch.cpu.get_capabilities()
    if can.get("amx_bf16"):
        return torch.bfloat16, "bf16: the CPU has AMX"
    if not can.get("avx512_bf16"):
        return torch.float32, "fp32: the CPU has neither AMX nor AVX512_BF16, so bf16 would be slower"
    if width is not None and width < WIDE:
        return torch.float32, f"fp32: on AVX512_BF16 a model {width} wide, less than {WIDE}, gains nothing from bf16"
    return torch.bfloat16, f"bf16: the CPU has AVX512_BF16 (fp32 for models less than {WIDE} wide)"


def compute_dtype(name: Dtype, width: int | None = None) -> torch.dtype:
    """The number format called `name`; `auto` is what `choose_dtype` chooses for a model of that width."""
    import torch

    dtype: torch.dtype = choose_dtype(width)[0] if name == "auto" else getattr(torch, name)
    return dtype


def weights_digest(model: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights, in the order of their names.

    Equal digest, bit-identical weights. Takes a `torch.nn.Module` or a `LanguageModel`.
    """
    import torch

    module = model.model if isinstance(model, LanguageModel) else model
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
