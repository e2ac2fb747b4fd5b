"""Sampling by a vLLM server, through its OpenAI-compatible API, instead of by this process.

The server holds the base model and gets the adapters whenever they have changed, so it always samples from the policy
as it stands. Its log-probabilities come from other kernels than the trainer's: training measures the difference in
every step (`logprob_mismatch`), and `correction` of the policy-gradient optimizers weighs it away.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlhf_core.errors import TrainingError
from rlhf_core.plugins.base import PluginConfig

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_core.lm.rollout import Rollouts
    from rlhf_core.records import Prompt

TRIES = 3
"""Of a request that the server refuses because it is busy."""
START = (
    "Start one: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE_MODEL --enable-lora --max-lora-rank R "
    "--logprobs-mode processed_logprobs"
)
_numbers = itertools.count()


class Vllm(PluginConfig):
    """A vLLM server (0.10.2 or newer) that serves the policy's base model.

    It must be started with runtime updates of adapters allowed and with `--logprobs-mode processed_logprobs`, so that
    its log-probabilities are those at the temperature that it samples with.
    """

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://")
    """Where it listens."""
    key: str = "VLLM_API_KEY"
    """Environment variable with the token that it wants, if it wants one."""
    adapters: Path | None = None
    """Folder in which both this machine and the server's can see the adapters. None: a temporary one, which does for a
    server on this machine."""
    connections: int = Field(64, ge=1)
    """Prompts that are sent at a time; the server batches them itself."""
    timeout: float = Field(600.0, gt=0)
    """Seconds to wait for an answer."""


class VllmServer:
    """Samples for one language model with adapters."""

    def __init__(self, config: Vllm) -> None:
        self.config = config
        self.tag = f"rlhf-{os.getpid()}-{next(_numbers)}"
        """Keeps this process's adapters apart from others' on the same server."""
        self.serving = ""
        """Name of the adapters that the server has of us."""

    def rollout(
        self,
        lm: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_new_tokens: int = 0,
    ) -> Rollouts:
        """What `lm.rollout` gives, sampled by the server; the same weights and seeds give the same answers as far as
        the server itself repeats them. Raises TrainingError where it cannot be reached or answers something else.
        """
        import torch

        from rlhf_core.lm.rollout import Rollouts

        name = self._serve(lm)
        rows = lm.format.prompt_tokens(prompts)
        request = {
            "model": name, "max_tokens": lm.max_new_tokens, "min_tokens": min_new_tokens, "temperature": temperature,
            "top_p": top_p, "top_k": top_k or -1, "stop": list(stop), "include_stop_str_in_output": True,
            "stop_token_ids": [lm.eos_id], "logprobs": 0, "return_token_ids": True, "skip_special_tokens": False,
        }  # fmt: skip
        asked = [{**request, "prompt": row, "seed": seed % 2**63} for row, seed in zip(rows, seeds, strict=True)]
        with ThreadPoolExecutor(self.config.connections) as pool:
            answers = list(pool.map(self._answer, asked))
        ids, mask = lm.encode(prompts)
        width = max(len(tokens) for tokens, _, _ in answers)
        tokens = torch.full((len(answers), width), lm.pad_id, dtype=torch.int64)
        logprobs = torch.zeros(len(answers), width)
        own = torch.zeros(len(answers), width, dtype=torch.bool)
        for row, (sampled, said, _) in enumerate(answers):
            tokens[row, : len(sampled)] = torch.tensor(sampled)
            logprobs[row, : len(sampled)] = torch.tensor(said)
            own[row, : len(sampled)] = True
        finished = torch.tensor([ended for _, _, ended in answers])
        there = lm.device
        return Rollouts(ids, mask, tokens.to(there), logprobs.to(there), own.to(there), finished.to(there))

    def _answer(self, request: dict[str, Any]) -> tuple[list[int], list[float], bool]:
        """Tokens, their log-probabilities, and whether the answer came to an end by itself."""
        answer = self._post("/v1/completions", request)
        try:
            choice = answer["choices"][0]
            tokens = [int(token) for token in choice["token_ids"]]
            logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TrainingError(
                "the server's answer has no token ids with log-probabilities",
                where=self.config.url,
                remedy="It takes vLLM 0.10.2 or newer.",
            ) from error
        if len(tokens) != len(logprobs) or not 0 < len(tokens) <= request["max_tokens"]:
            raise TrainingError(
                f"the server gave {len(tokens)} tokens with {len(logprobs)} log-probabilities where at most "
                f"{request['max_tokens']} were asked for",
                where=self.config.url,
            )
        return tokens, logprobs, choice.get("finish_reason") == "stop"

    def _serve(self, lm: LanguageModel) -> str:
        """See to it that the server has the adapters as they are now; their name there."""
        from rlhf_core.lm.shared import adapter_weights, write_adapters
        from rlhf_core.lm.wearing import worn_by

        adapters = worn_by(lm.model)
        digest = hashlib.sha256()
        for path, weight in sorted(adapter_weights(lm.model, adapters).items()):
            digest.update(path.encode())
            digest.update(weight.float().cpu().contiguous().numpy().tobytes())
        name = f"{self.tag}-{digest.hexdigest()[:16]}"
        if name != self.serving:
            folder = (self.config.adapters or Path(self._scratch.name)) / name
            folder.mkdir(parents=True)
            write_adapters(lm.model, adapters, folder)
            self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.resolve())})
            if self.serving:
                self._post("/v1/unload_lora_adapter", {"lora_name": self.serving})
            self.serving = name
        return name

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="rlhf-adapters-")

    @cached_property
    def _client(self) -> Any:
        import httpx

        token = os.environ.get(self.config.key)
        return httpx.Client(
            base_url=self.config.url,
            timeout=self.config.timeout,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            limits=httpx.Limits(max_connections=self.config.connections),
        )

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The server's JSON, or its text where it says something else."""
        import httpx

        for last in (*[False] * (TRIES - 1), True):
            try:
                answer = self._client.post(path, json=body)
            except httpx.HTTPError as error:
                raise TrainingError(
                    f"no vLLM server answers: {type(error).__name__}: {error}", where=self.config.url, remedy=START
                ) from error
            if answer.status_code not in (429, 503) or last:
                break
            time.sleep(1)
        if answer.is_error:
            raise TrainingError(
                f"the vLLM server refuses {path} with {answer.status_code}: {answer.text[:300]}",
                where=self.config.url,
                remedy=START,
            )
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
