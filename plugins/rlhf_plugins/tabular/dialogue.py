"""Dialogues as they are found in data sets: Anthropic HH transcripts, lists of messages, ShareGPT turns."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from rlhf_core.records import Message
from rlhf_plugins.tabular.cells import BadCell, text_of

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant",
    "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
_TURN = re.compile(r"\n\n(Human|Assistant):")


def is_transcript(value: Any) -> bool:
    """Whether a cell looks like an HH transcript."""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def read_transcript(value: Any, column: str) -> list[Message]:
    r"""The turns of `\n\nHuman: … \n\nAssistant: …` (Bai et al. 2022, Anthropic HH)."""
    if not is_transcript(value):
        raise BadCell(f"`{column}` is not a dialogue that begins with '\\n\\nHuman:'")
    _, *parts = _TURN.split(value)
    roles: list[Role] = ["user" if name == "Human" else "assistant" for name in parts[::2]]
    return _turns(zip(roles, parts[1::2], strict=True), column)


def read_messages(value: Any, column: str) -> list[Message]:
    """The turns of a list of {role, content} or {from, value}, of one such message, or of either as a JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            raise BadCell(f"`{column}` is neither a list of messages nor JSON") from None
    pairs = []
    for message in [value] if isinstance(value, dict) else value if isinstance(value, list) else []:
        if not isinstance(message, dict):
            raise BadCell(f"`{column}` holds something that is not a message")
        name = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if not isinstance(name, str) or name not in ROLES or not isinstance(content, str):
            raise BadCell(f"`{column}` holds a message without a known role or without text")
        pairs.append((ROLES[name], content))
    if not pairs:
        raise BadCell(f"`{column}` holds no messages")
    return _turns(pairs, column)


def split_last(turns: list[Message], column: str) -> tuple[tuple[Message, ...], str]:
    """What was asked, and the answer that ends the dialogue."""
    *before, last = turns
    if last.role != "assistant":
        raise BadCell(f"`{column}` does not end with an answer of the assistant")
    return tuple(before), last.content


def _turns(pairs: Any, column: str) -> list[Message]:
    """Messages without empty ones; turns in a row of one role become one, as chat templates want them to alternate."""
    turns: list[Message] = []
    for role, content in pairs:
        content = text_of(content, column)
        if not content:
            raise BadCell(f"`{column}` holds an empty turn of the {role}")
        if turns and turns[-1].role == role:
            content = f"{turns.pop().content}\n\n{content}"
        turns.append(Message(role=role, content=content))
    return turns
