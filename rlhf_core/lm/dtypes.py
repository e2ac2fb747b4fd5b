"""Which number format to compute in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
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
