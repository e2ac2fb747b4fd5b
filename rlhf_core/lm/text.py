"""How prompts and answers become tokens: one place, so that imitation, sampling and scoring see the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlhf_core.errors import DataError
from rlhf_core.records import Message, Prompt


class PromptFormat:
    """A tokenizer and the rules around it.

    A text prompt is tokenised as it is, behind the BOS if the tokenizer has one. Chat messages go through the
    tokenizer's chat template, or through `plain_chat` where it has none. An answer is tokenised on its own, with the
    space that parts it from its prompt (see `joint`), and ends with EOS. Text that merely spells a special token
    (`</s>`) stays text, except inside a chat template, whose special tokens cannot be told from the messages' own.
    """

    def __init__(self, tokenizer: Any, max_prompt_tokens: int) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no EOS token, so no answer could ever end",
                remedy="Set `eos_token` in the model's tokenizer_config.json.",
            )
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.cut: set[str] = set()
        """Ids of the prompts that were too long and lost their beginning."""
        (probe,) = self._plain(["a"])
        self.spaces_by_itself: bool = tokenizer.convert_ids_to_tokens(probe)[0][:1] in ("▁", "Ġ")
        """Whether the tokenizer puts a space before every text (SentencePiece's dummy prefix)."""

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt; of a longer one the last `max_prompt_tokens`, where a BOS stays in front."""
        rows: list[list[int]] = [[]] * len(prompts)
        texts = {i: prompt.text for i, prompt in enumerate(prompts) if prompt.text is not None}
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        for i, tokens in zip(texts, self._plain(list(texts.values())), strict=True):
            rows[i] = bos + tokens
        for i, prompt in enumerate(prompts):
            if prompt.messages:
                rows[i] = self._chat(prompt.messages)
            elif prompt.text is None:
                raise DataError(
                    f"a language model cannot answer `{prompt.content}`", remedy="It needs text or messages."
                )
            if len(rows[i]) > self.max_prompt_tokens:
                self.cut.add(prompt.id)
                kept = bos if rows[i][: len(bos)] == bos else []
                rows[i] = kept + rows[i][len(rows[i]) - self.max_prompt_tokens + len(kept) :]
        return rows

    def answer_tokens(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each of `texts`, an answer to the prompt in the same place, with its EOS."""
        joined = [self.joint(prompt) + text for prompt, text in zip(prompts, texts, strict=True)]
        return [[*tokens, self.eos_id] for tokens in self._plain(joined)]

    def joint(self, prompt: Prompt) -> str:
        """What stands between a prompt and its answer: a space after `Headline:`, nothing after a line break.

        Byte-level vocabularies hold ` word` and `word` as different tokens, and running text has the former: an
        answer without the space begins with a token that the model has hardly seen. Chat templates bring their own
        separator; so do scripts that are written without spaces.
        """
        if self.spaces_by_itself or (prompt.messages and self.tokenizer.chat_template is not None):
            return ""
        end = prompt.text[-1] if prompt.text is not None else ":"
        return " " if end.isascii() and not end.isspace() else ""

    def decode(self, tokens: Any) -> list[str]:
        """The text of each row of `tokens` without special tokens, stripped of white space at both ends."""
        rows = tokens.tolist() if hasattr(tokens, "tolist") else [list(row) for row in tokens]
        texts: list[str] = self.tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [text.strip() for text in texts]

    def ends_with(self, stop: Sequence[str]) -> Callable[[Any], list[bool]]:
        """A function that says of each row of tokens [b, t] whether the last one completed a string of `stop`."""
        # A token is at least one byte, so a string of n bytes is spread over at most n tokens.
        reach = max(len(string.encode()) for string in stop)

        def ended(tokens: Any) -> list[bool]:
            tails = self.tokenizer.batch_decode(tokens[:, -reach:], skip_special_tokens=True)
            return [any(string in tail for string in stop) for tail in tails]

        return ended

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        rows: list[list[int]] = encoded["input_ids"]
        return rows

    def _chat(self, messages: Sequence[Message]) -> list[int]:
        turns = [message.model_dump() for message in messages]
        if self.tokenizer.chat_template is None:
            bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            return bos + self._plain([plain_chat(messages)])[0]
        rendered = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        tokens: list[int] = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return tokens


def before_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of the strings `stop`, stripped; all of it where none occurs."""
    return text[: min((place for string in stop if (place := text.find(string)) >= 0), default=len(text))].strip()


def plain_chat(messages: Sequence[Message]) -> str:
    """Messages as `role: content` lines and an open `assistant:`, for tokenizers without a chat template."""
    return "".join(f"{message.role}: {message.content}\n" for message in messages) + "assistant:"
