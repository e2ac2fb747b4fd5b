"""A scalar head on a frozen language model: adapters and a few numbers of its own, the weights below are shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from rlhf_core.errors import DataError
from rlhf_core.lm.heads import HEAD_FILE, ScalarHead
from rlhf_core.lm.lora import is_adapted
from rlhf_core.lm.shared import ADAPTERS_FILE, adapter_weights, add_beside, write_adapters
from rlhf_core.lm.wearing import OWN, Wearing

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

BASE_FILE = "base.json"


class AdaptedHead(ScalarHead):
    """Adapters on the decoder of a language model, and a linear map from its states to one number or several.

    Its parameters are the adapters and the map: they are all that training changes and that is saved. The language
    model goes on as if it were alone.
    """

    _whole: Any
    """The model that wears the adapters, `backbone` its decoder."""

    def __init__(
        self,
        model: Any,
        base: Mapping[str, Any] | None,
        config: Any,
        weights: Mapping[str, torch.Tensor],
        *,
        dropout: float = 0.0,
        outputs: int = 1,
    ) -> None:
        super().__init__(_decoder(model), dropout=dropout, outputs=outputs)
        self.base, self.config = base, config
        self._put_on(model, weights)

    @classmethod
    def on(cls, lm: LanguageModel, *, dropout: float = 0.0, outputs: int = 1) -> Self:
        """A head on `lm` that begins with a copy of its adapters. Raises DataError where `lm` has none."""
        if not is_adapted(lm.model):
            raise DataError(
                "only a model with adapters can share its base, and this one has none",
                remedy="Give the policy `lora: {r: 16}`, or train a whole network here.",
            )
        weights = adapter_weights(lm.model, OWN)
        return cls(lm.model, lm.base, lm.model.peft_config[OWN], weights, dropout=dropout, outputs=outputs)

    def share_base(self, lm: LanguageModel) -> bool:
        """Compute on the base of `lm` from now on, and give the own one free; False where that is another base."""
        if not is_adapted(lm.model) or lm.base is None or lm.base != self.base:
            return False
        if next(lm.model.parameters()).dtype != next(self.backbone.parameters()).dtype:
            return False
        self._put_on(lm.model, adapter_weights(self._whole, self._name))
        return True

    def save(self, folder: Path) -> None:
        """Write adapters, head and the name of the model below them."""
        from safetensors.torch import save_file

        write_adapters(self._whole, self._name, folder)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / HEAD_FILE)
        dtype = str(next(self.backbone.parameters()).dtype).removeprefix("torch.")
        (folder / BASE_FILE).write_text(json.dumps({"base": self.base, "dtype": dtype}, indent=2) + "\n")

    @classmethod
    def load(
        cls, folder: Path, *, dropout: float = 0.0, device: str | torch.device = "cpu", trust_remote_code: bool = False
    ) -> Self:
        """What `save` wrote, on a base of its own until it shares one."""
        from peft import LoraConfig, get_peft_model
        from safetensors.torch import load_file

        from rlhf_core.lm.loading import load_base

        described = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
        base = described["base"]
        model = load_base(base, getattr(torch, described["dtype"]), trust_remote_code=trust_remote_code).to(device)
        config = LoraConfig.from_pretrained(folder)
        head = load_file(folder / HEAD_FILE, device=str(device))
        weights = load_file(folder / ADAPTERS_FILE, device=str(device))
        with torch.random.fork_rng():
            adapted = get_peft_model(model, config)
        loaded = cls(adapted, base, config, weights, dropout=dropout, outputs=len(head["bias"]))
        loaded.head.load_state_dict(head)
        return loaded.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Adapters and head alone are copied: the copy sits on the same base."""
        weights, rate = adapter_weights(self._whole, self._name), self.dropout.p
        copied = type(self)(self._whole, self.base, self.config, weights, dropout=rate, outputs=self.head.out_features)
        copied.head.load_state_dict(self.head.state_dict())
        return copied

    def _put_on(self, model: Any, weights: Mapping[str, torch.Tensor]) -> None:
        self._name = add_beside(model, self.config, weights, stem="head", trainable=True)
        # No submodules: the base is another's to count, move and save.
        object.__setattr__(self, "_whole", model)
        self._modules.pop("backbone", None)
        self.backbone = Wearing(_decoder(model), self._name)
        own = {path: weight for path, weight in model.named_parameters() if f".{self._name}." in path}
        self.adapters = torch.nn.ParameterDict(
            {path.replace(f".{self._name}.", ".").replace(".", "|"): weight for path, weight in own.items()}
        )


def _decoder(model: Any) -> Any:
    return model.get_base_model().get_decoder()
