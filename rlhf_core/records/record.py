"""What all records are: immutable, written as JSON, identified by what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict


def content_id(content: Any) -> str:
    """The first 128 bits of the SHA-256 of `content` as canonical JSON, in hexadecimal."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Record(BaseModel):
    """An immutable value with an identity made of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    beside_identity: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that do not count for `id`."""

    def identity(self) -> Any:
        """What `id` is the digest of."""
        return self.model_dump(mode="json", exclude=set(self.beside_identity))

    @cached_property
    def id(self) -> str:
        """Content id: equal content, equal id, in any process."""
        return content_id([type(self).__name__, self.identity()])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, unchecked; its identity is its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("id", None)
        return copy
