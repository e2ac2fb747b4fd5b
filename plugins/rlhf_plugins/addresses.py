"""Addresses of other programs' servers, as pipelines name them."""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from rlhf_core.errors import RlhfError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"an address begins with http:// or https:// and names a server, unlike {url!r}")
    if parts.username or parts.password:
        raise ValueError(
            "an address holds no password, which would be written down with the run: name the environment variable "
            "of the key instead"
        )
    return url.rstrip("/")


Address = Annotated[str, AfterValidator(_checked)]
"""An http or https address of a server, without a key in it and without a slash at its end."""


def is_in_the_open(url: str) -> bool:
    """Whether everybody on the way to the server can read what is sent to it."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOCAL_NAMES


def key_for(url: str, variable: str) -> str:
    """The key in the environment's `variable`, or nothing. Raises RlhfError where it would travel in the open."""
    key = os.environ.get(variable, "")
    if key and is_in_the_open(url):
        raise RlhfError(
            f"the key in {variable} would travel in the open",
            where=url,
            remedy="Use an https:// address, or unset the variable where the service needs no key.",
        )
    return key
