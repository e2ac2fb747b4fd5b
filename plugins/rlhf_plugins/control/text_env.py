"""Text as an environment: any policy that writes and any reward model, for any agent that speaks Gymnasium.

Needs the extra `control`; importing this module imports Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhf_core.errors import DataError
from rlhf_core.plugins import Policy, RewardModel
from rlhf_core.records import Message, Prompt, Sample

Features = Callable[[Sequence[str]], NDArray[np.float32]]
"""From n texts to n rows of D numbers between -1 and 1."""
PRINTABLE = "".join(map(chr, range(32, 127)))
"""What a random text action is made of; an agent may write anything."""


class HashedWords:
    """Words and pairs of words, marks of punctuation and capitals included, hashed into `size` numbers of unit length.

    Needs no vocabulary and no training, so every text of every language has features.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = size

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            n_features=self.size, ngram_range=(1, 2), lowercase=False, token_pattern=r"\w+|[^\w\s]", norm="l2"
        )

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, size]"""
        return np.asarray(self._vectorizer.transform(texts).todense(), dtype=np.float32)


class TextEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """A prompt is the observation, a response the action, a reward model's score the reward.

    With a `policy`, the action is the number of one of k candidate responses that the policy wrote, and the observation
    holds the features of the prompt and of each candidate, [1 + k, D]: an agent learns to pick the best of k. Without
    one, the action is the response itself (`gymnasium.spaces.Text`) and the observation the prompt's features, [1, D].

    An episode has `turns` turns. After each but the last, the response and `follow_up` join the conversation, which is
    the next turn's prompt; every response is scored as an answer to the conversation so far. `info` holds the texts:
    `prompt`, `candidates`, and after a step `response`.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: RewardModel,
        *,
        policy: Policy | None = None,
        candidates: int = 4,
        turns: int = 1,
        follow_up: str = "Give another answer that is better.",
        features: Features | None = None,
        max_characters: int = 500,
        render_mode: str | None = None,
    ) -> None:
        """Raises DataError where there are no prompts, where one is no text, and for fewer than 1 turn or 2 candidates.

        `features` defaults to `HashedWords()`; `max_characters` bounds what an agent may write.
        """
        if not prompts or any(prompt.modality != "text" for prompt in prompts):
            raise DataError("TextEnv needs prompts, and all of them texts", remedy="Use a data source of texts.")
        if turns < 1 or (policy is not None and candidates < 2):
            raise DataError(
                f"TextEnv cannot have {turns} turns with {candidates} candidates",
                remedy="At least one turn, and at least two candidates to pick from.",
            )
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise DataError(f"TextEnv cannot render as {render_mode!r}", remedy="Use `ansi`, or None.")
        self.prompts, self.reward, self.policy = tuple(prompts), reward, policy
        self.turns, self.follow_up, self.render_mode = turns, follow_up, render_mode
        self.features: Features = features or HashedWords()
        self.count = candidates if policy is not None else 0
        width = self.features(["a text"]).shape[1]
        self.observation_space = spaces.Box(-1.0, 1.0, (1 + self.count, width), np.float32)
        self.action_space = (
            spaces.Text(max_characters, min_length=0, charset=PRINTABLE)
            if policy is None
            else spaces.Discrete(candidates)
        )
        self.turn = 0
        self.prompt = self.prompts[0]
        self.written: list[Sample] = []
        self.said = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first turn about a prompt drawn at random, or about number `options["prompt"]`."""
        super().reset(seed=seed)
        number = (options or {}).get("prompt")
        self.prompt = self.prompts[int(self.np_random.integers(len(self.prompts))) if number is None else number]
        self.turn, self.said = 0, ""
        return self._ask()

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Give the response, get its score; then the next turn, or the end. Raises DataError for a score of NaN."""
        if self.policy is None:
            response = Sample(prompt_id=self.prompt.id, text=str(action), policy="agent")
        else:
            response = self.written[int(action)]
        self.said = response.text or ""
        score = float(self.reward.score([self.prompt], [response.blind()]).mean[0])
        if not np.isfinite(score):
            raise DataError(
                f"the reward model gave {score} to the response {self.said[:80]!r}",
                remedy="A reward must be a finite number.",
            )
        self.turn += 1
        over = self.turn == self.turns
        if not over:
            self.prompt = continued(self.prompt, self.said, self.follow_up)
        observation, info = self._ask() if not over else self._observe()
        return observation, score, over, False, {**info, "response": self.said}

    def render(self) -> str | None:  # type: ignore[override]
        """The conversation so far."""
        return f"{self.prompt.content}\n{self.said}" if self.render_mode == "ansi" else None

    def _ask(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if self.policy is not None:
            seed = int(self.np_random.integers(2**31))
            [self.written] = self.policy.sample([self.prompt], self.count, seed)
        return self._observe()

    def _observe(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        candidates = [sample.text or "" for sample in self.written]
        observation = self.features([self.prompt.content, *candidates])
        return observation, {"prompt": self.prompt.content, "candidates": candidates}


def continued(prompt: Prompt, response: str, follow_up: str) -> Prompt:
    """The conversation of `prompt`, the response to it and what is asked next; what judges may know stays known."""
    before = prompt.messages or (Message(role="user", content=prompt.content),)
    messages = (*before, Message(role="assistant", content=response), Message(role="user", content=follow_up))
    return Prompt(messages=messages, group=prompt.group, split=prompt.split, facts=prompt.facts)
