"""The errors a person sees: what happened, where, and what to do about it."""

from __future__ import annotations

from typing import Any


class RlhfError(Exception):
    """A problem that the reader can act on; printed as one paragraph, never as a traceback.

    `what` says what is wrong, `where` names the file and line (or the plugin, or the store), `remedy` says what to do.
    """

    exit_code = 2
    """Of the command that ends with it."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is, whatever the arguments of a subclass's own `__init__` are."""
        return _restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        text = f"{self.where}  {self.what}" if self.where else self.what
        return f"{text}\n{self.remedy}" if self.remedy else text


def _restored(kind: type[RlhfError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> RlhfError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class PluginError(RlhfError):
    """A plugin is unknown, ambiguous, not allowed, or broken."""


class PipelineError(RlhfError):
    """The pipeline file is malformed, or its parts do not fit together."""


class DataError(RlhfError):
    """A data file or a row of it cannot be used."""


class ServerError(RlhfError):
    """A server that feedback comes from cannot be reached, refuses, or answers something else than was asked."""


class StoreError(RlhfError):
    """The feedback store refuses an operation."""


class WorkspaceError(RlhfError):
    """The workspace is held by another process, of another version, or not writable."""


class Busy(WorkspaceError):
    """Another run holds the workspace; later the same command works."""

    exit_code = 4


class TrainingError(RlhfError):
    """Training cannot go on: non-finite numbers, nothing to learn from."""


class Waiting(RlhfError):
    """Nothing is wrong: people have questions to answer, and the campaign goes on when they have."""

    exit_code = 3

    def __init__(self, missing: int, annotator: str, where: str = "People answer with `rlhf annotate`") -> None:
        super().__init__(
            f"waiting for {missing} answers from `{annotator}`.",
            remedy=f"{where}; then the same command goes on from here.",
        )
