"""The address of an artifact, and the error that names what is wrong with one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rlhf_core.errors import RlhfError


class Ref(BaseModel):
    """What stages exchange instead of models and data: a kind, where it lies, and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    uri: str
    """Relative to the artifact root: `KIND/SHA256`."""
    sha256: str

    @model_validator(mode="after")
    def _stays_below_the_root(self) -> Ref:
        # A ref may be read from a shared store; no text in it may lead out of the artifact root.
        if self.uri != f"{self.kind}/{self.sha256}":
            raise ValueError(f"the address `{self.uri}` is not `{self.kind}/{self.sha256}`")
        for part in (self.kind, self.sha256):
            if "/" in part or not is_inside(part) or part.startswith("."):
                raise ValueError(f"`{part}` cannot be a part of an artifact's address")
        return self

    @property
    def short(self) -> str:
        """The digest's first characters, for display and as the version of a policy."""
        return self.sha256[:12]

    @property
    def manifest(self) -> str:
        """Where the artifact's manifest lies, relative to the artifact root."""
        return f"{self.uri}.manifest.json"


class DamagedArtifact(RlhfError):
    """An artifact is not, or no longer, what its manifest says. Its stage can be computed again."""

    def __init__(self, ref: Ref, file: str, problem: str, where: str = "") -> None:
        self.ref = ref
        self.file = file
        self.problem = problem
        super().__init__(
            f"the artifact {ref.kind}/{ref.short} is damaged: `{file}` {problem}.",
            where=where,
            remedy="Run the same command: the stage that made it is computed again.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ref, self.file, self.problem, self.where)


def is_inside(name: str) -> bool:
    """Whether `name`, read below some folder, stays below it: relative, and without empty, `.` or `..` parts."""
    return "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
