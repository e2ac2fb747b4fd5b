"""Requests to an object store: repeated while it is away, and explained where that does not help."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rlhf_core.errors import RlhfError, WorkspaceError
from rlhf_flows.artifact_store.trouble import explained, is_transient

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds during which a request is repeated while the store does not answer or answers with an error of its own."""

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0


class Connection:
    """A file system of fsspec at a URL; `path` is what the URL names in it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.patience = PATIENCE
        self._opened: tuple[int, Any, str] | None = None

    def call(self, request: Callable[[Any, str], T]) -> T:
        """The result of `request`, which is given the file system and the root's path in it.

        FileNotFoundError and errors of the local disk are the caller's to understand; the others become RlhfError.
        """
        give_up = time.monotonic() + self.patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return request(*self._filesystem())
            except RlhfError:
                raise
            except Exception as error:
                wait = pause * random.uniform(0.8, 1.2)  # so that many workers do not come back at the same moment
                if is_transient(error) and time.monotonic() + wait < give_up:
                    if pause == _FIRST_PAUSE:
                        _LOG.warning("%s does not answer (%s); trying again for %.0f s", self.url, error, self.patience)
                    time.sleep(wait)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                problem = explained(error, self.url, self.patience)
                if problem is None:
                    raise
                raise problem from error

    def _filesystem(self) -> tuple[Any, str]:
        # Neither the connections nor the thread that serves them outlive a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *_open(self.url))
        return self._opened[1:]


def _open(url: str) -> tuple[Any, str]:
    """The file system behind `url`, without any memory of listings, and the path in it."""
    import fsspec.core  # type: ignore[import-untyped]

    protocol = url.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in ("s3", "s3a"):
        # Repeating is this module's work: with the libraries' own repetitions a dead address takes minutes to be told.
        patience = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}
        options |= {"config_kwargs": patience, "max_concurrency": 4}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        extra = 'pip install "rlhf-pipeline[s3]"' if protocol in ("s3", "s3a") else str(error)
        raise WorkspaceError(
            f"the package that reads `{protocol}://` is not installed.", where=url, remedy=f"Install it:  {extra}"
        ) from error
    except ValueError as error:
        raise WorkspaceError(
            f"the artifact root cannot be understood: {error}.",
            where=url,
            remedy="Give a folder or a URL such as s3://bucket/folder, gs://bucket/folder or az://container/folder.",
        ) from error
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
    return filesystem, str(path).rstrip("/")
