"""A causal language model with its tokenizer and prompt format."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from rlhf_core.errors import DataError
from rlhf_core.lm import lora as adapters
from rlhf_core.lm.dtypes import Dtype, compute_dtype
from rlhf_core.lm.loading import Quantised, best_device, load_base, load_config, load_model, load_tokenizer, quiet
from rlhf_core.lm.text import PromptFormat, before_stop

if TYPE_CHECKING:
    import torch

    from rlhf_core.lm.lora import Lora
    from rlhf_core.lm.rollout import Rollouts
    from rlhf_core.records import Prompt

DESCRIPTION = "language_model.json"


class Engine(Protocol):
    """Who samples for a language model instead of this process, such as a server that has its weights."""

    def rollout(
        self,
        lm: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        stop: Sequence[str],
        **sampling: Any,
    ) -> Rollouts:
        """What `LanguageModel.rollout` gives, by the weights as they are now."""
        ...


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
        self.engine: Engine | None = None
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

        width = load_config(name_or_folder, trust_remote_code=trust_remote_code, revision=revision).hidden_size
        compute = compute_dtype(dtype, width)
        base: dict[str, Any] = {
            "name": str(Path(name_or_folder).resolve()) if Path(name_or_folder).is_dir() else str(name_or_folder),
            "revision": revision,
        }
        if quantise is not None:
            if lora is None:
                raise DataError(f"a {quantise} model cannot be trained itself", remedy="Train adapters: add `lora`.")
            base["quantise"] = quantise
        tokenizer = load_tokenizer(name_or_folder, trust_remote_code=trust_remote_code, revision=revision)
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
        from rlhf_core.lm.rollout import rollout
        from rlhf_core.lm.sharding import gathered

        if self.engine is not None:
            with gathered(self.model):
                return self.engine.rollout(self, prompts, seeds=seeds, stop=stop, **sampling)
        ids, mask = self.encode(prompts)
        limits = {"max_new_tokens": self.max_new_tokens, "eos_id": self.eos_id, "pad_id": self.pad_id}
        stops = self.format.ends_with(stop) if stop else None
        with gathered(self.model), self.autocast():
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
            model = load_model(folder, torch.float32, trust_remote_code=trust_remote_code).to(best_device())
        return cls(
            model,
            load_tokenizer(folder, trust_remote_code=trust_remote_code),
            max_prompt_tokens=description["max_prompt_tokens"],
            max_new_tokens=description["max_new_tokens"],
            compute_dtype=compute,
            base=base,
        )


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
