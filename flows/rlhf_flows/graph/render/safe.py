"""Other people's text made fit for showing: no secrets, no control characters."""

from __future__ import annotations

import re
import unicodedata

from pydantic import JsonValue

from rlhf_core.plugins.base import Use

MASK = "***"

_COUNTED = {"token", "key", "pass", "cookie"}
"""Words of names whose numbers are no secrets: `max_tokens: 512`."""
_SECRET = _COUNTED | {
    "accesskey", "accesstoken", "apikey", "auth", "authorization", "authtoken", "bearer", "credential", "dsn",
    "passphrase", "passwd", "password", "pwd", "secret", "secretkey", "sig", "signature", "webhook",
}  # fmt: skip
_POINTS = {"column", "env", "field", "file", "folder", "name", "path", "var", "variable"}
"""Last words of names that say where a secret is, instead of holding it: `token_variable`, `password_file`."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_VARIABLE = re.compile(r"\$\{\w+\}")
_HOOK = re.compile(r"(https?://)(?=\S*hook)(?:[^\s/?#]*@)?([^\s/?#@]*)[/?#][^\s'\"]*", re.IGNORECASE)
_LOGIN = re.compile(r"(\w://)[^\s/?#]*@")
_PAIR = re.compile(r"([\w-]+)=('[^']*'|\"[^\"]*\"|[^\s&;,#]+)")
_BEARER = re.compile(r"\b(bearer\s+)[\w.~+/=-]{12,}", re.IGNORECASE)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def shown(text: str) -> str:
    """The text on one line, without secrets, terminal sequences, control characters and invisible characters."""
    bare = _ESCAPE.sub("", text)
    kept = (" " if unicodedata.category(c) in ("Zl", "Zp") or c in "\t\r\n" else c for c in bare)
    return " ".join(
        _without_secrets("".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))).split()
    )


def options(use: Use) -> dict[str, JsonValue]:
    """A plugin's own configuration as plain JSON, its secrets masked."""
    plain: dict[str, JsonValue] = use.model_dump(mode="json", exclude={"use"})
    return {name: masked(value, name) for name, value in plain.items()}


def masked(value: JsonValue, name: str = "") -> JsonValue:
    """The value of an option, with `***` for whatever its name, or a name inside it, says is a secret.

    In strings, the credentials of addresses and the path of a webhook's address are masked too. What only refers to an
    environment variable, such as `${TEAM_WEBHOOK}`, is no secret.
    """
    words = _secret_words(name)
    if isinstance(value, dict):
        return {key: masked(each, name if words else key) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each, name) for each in value]
    if isinstance(value, str):
        return MASK if words and value and not _VARIABLE.fullmatch(value) else _without_secrets(value)
    if isinstance(value, bool) or value is None or words <= _COUNTED:
        return value
    return MASK


def _secret_words(name: str) -> set[str]:
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _POINTS:
        return set()
    return {single for word in words if (single := word if word in _SECRET else word.removesuffix("s")) in _SECRET}


def _without_secrets(text: str) -> str:
    def pair(found: re.Match[str]) -> str:
        return f"{found[1]}={MASK}" if _secret_words(found[1]) and not _VARIABLE.fullmatch(found[2]) else found[0]

    text = _HOOK.sub(rf"\1\2/{MASK}", text)
    text = _LOGIN.sub(rf"\1{MASK}@", text)
    return _BEARER.sub(rf"\1{MASK}", _PAIR.sub(pair, text))
