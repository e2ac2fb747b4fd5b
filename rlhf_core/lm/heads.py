"""A transformer that answers with a number for each position: reward models and value models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from rlhf_core.errors import DataError
from rlhf_core.lm.forward import hidden_states, is_encoder, positions
from rlhf_core.lm.loading import quiet
from rlhf_core.lm.sharding import fill, whole

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

HEAD_FILE = "head.safetensors"


class ScalarHead(torch.nn.Module):
    """The decoder of a causal language model, or an encoder, without its own head, and a linear map to one number.

    With `outputs` there are so many numbers, one a criterion or a bin; `head` gives them all, `forward` takes one.
    Padding may stand on either side: positions are counted over the real tokens. An encoder's stands on the right.
    """

    def __init__(self, backbone: Any, *, dropout: float = 0.0, outputs: int = 1) -> None:
        super().__init__()
        if is_encoder(backbone.config) and getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # nobody reads it, and where a checkpoint has none its weights are random
        self.backbone = backbone
        self.dropout = torch.nn.Dropout(dropout)
        width = backbone.config.get_text_config().hidden_size
        parameter = next(backbone.parameters())
        self.head = torch.nn.Linear(width, outputs, device=parameter.device)
        # From zero the first scores are all equal: no arbitrary preference to unlearn, and nothing random to seed.
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    @classmethod
    def from_language_model(cls, lm: LanguageModel, *, dropout: float = 0.0, outputs: int = 1) -> Self:
        """A head on a copy of the language model's decoder (adapters merged in); `lm` stays as it is."""
        model = copy.deepcopy(lm.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        backbone = model.get_decoder()
        backbone.requires_grad_(True)
        return cls(backbone, dropout=dropout, outputs=outputs)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Values float32 [B, L] at every position of `ids` [B, L]; those outside `mask` [B, L] mean nothing."""
        hidden = hidden_states(self.backbone, ids, mask, positions(mask))
        values: torch.Tensor = self.head(self.dropout(hidden).to(self.head.weight.dtype)).squeeze(-1).float()
        return values

    def last_token_values(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Value float32 [B] at the last real token of each row."""
        columns = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask.bool(), columns, -1).amax(1)
        values: torch.Tensor = self(ids, mask).gather(1, last.clamp(min=0).unsqueeze(1)).squeeze(1)
        return values

    def rescale(self, mean: float, std: float) -> None:
        """Give (value - `mean`) / `std` from now on in the place of each value."""
        fill(self.head.weight, whole(self.head.weight) / std)
        fill(self.head.bias, (whole(self.head.bias) - mean) / std)

    def save(self, folder: Path) -> None:
        """Write the backbone as a Hugging Face folder and the head beside it, all safetensors."""
        from safetensors.torch import save_file

        quiet()
        self.backbone.save_pretrained(folder)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / HEAD_FILE)

    @classmethod
    def load(
        cls, folder: Path, *, dropout: float = 0.0, device: str | torch.device = "cpu", trust_remote_code: bool = False
    ) -> Self:
        """What `save` wrote. Raises DataError where there is none."""
        from safetensors.torch import load_file
        from transformers import AutoModel

        quiet()
        if not (folder / HEAD_FILE).is_file():
            raise DataError(f"no saved scalar model in {folder}", remedy=f"The folder must hold {HEAD_FILE}.")
        backbone = AutoModel.from_pretrained(folder, dtype="auto", trust_remote_code=trust_remote_code)
        head = load_file(folder / HEAD_FILE)
        loaded = cls(backbone.to(device), dropout=dropout, outputs=len(head["bias"]))
        loaded.head.load_state_dict(head)
        return loaded.eval()
