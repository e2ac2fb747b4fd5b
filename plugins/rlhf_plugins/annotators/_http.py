"""Another program's HTTP interface: JSON in and out, and errors in plain words."""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field, model_validator

from rlhf_core.errors import ServerError
from rlhf_plugins.addresses import Address, is_in_the_open
from rlhf_plugins.annotators._asking import AskingConfig

SHOWN = 300
"""Characters of a server's own words in an error."""


class ServerConfig(AskingConfig):
    """Where the server is, and what the annotators see."""

    url: Address
    """Address of the server, such as `https://labels.example.org`."""
    without_tls: bool = False
    """Send the token without TLS to a server on another machine: only where nobody else can listen."""
    timeout: float = Field(60, gt=0)
    """Seconds to wait for an answer of the server."""

    @model_validator(mode="after")
    def _protected(self) -> ServerConfig:
        if is_in_the_open(self.url) and not self.without_tls:
            raise ValueError("without TLS everybody on the way can read the token: use https, or say `without_tls`")
        return self


def token_of(variable: str, server: str) -> str:
    """The token in the environment variable. Raises ServerError where there is none."""
    token = os.environ.get(variable, "").strip()
    if not token:
        raise ServerError(
            f"{server} wants a token, and the environment variable {variable} is not set.",
            remedy=f"Set {variable}; it is read when people are asked, and stored nowhere.",
        )
    return token


class Server:
    """A server that speaks JSON. Requests raise ServerError where it is out of reach, refuses, or speaks otherwise."""

    def __init__(self, name: str, config: ServerConfig, headers: dict[str, str], remedy: str = "") -> None:
        import httpx

        self.name = name
        self.remedy = remedy
        """What to do where the token is refused."""
        self.client = httpx.Client(base_url=config.url, headers=headers, timeout=config.timeout)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """What the server says at `path`."""
        return self._ask("GET", path, params=parameters)

    def post(self, path: str, content: Any, **parameters: Any) -> Any:
        """What the server answers to `content`."""
        return self._ask("POST", path, json=content, params=parameters)

    def put(self, path: str, content: Any) -> Any:
        """What the server answers to `content`."""
        return self._ask("PUT", path, json=content)

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        where = f"{self.client.base_url}".rstrip("/") + path
        try:
            response = self.client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ServerError(
                f"{self.name} cannot be reached: {error or type(error).__name__}",
                where=where,
                remedy="Once it is there, the same command goes on from here; nothing that was answered is lost.",
            ) from error
        if response.status_code in (401, 403):
            raise ServerError(f"{self.name} refuses the token.", where=where, remedy=self.remedy)
        if response.status_code == 429 or response.status_code >= 500:
            raise ServerError(
                f"{self.name} is in trouble ({response.status_code}): {response.text[:SHOWN]}",
                where=where,
                remedy="Try again later: the same command goes on from here.",
            )
        if response.is_error or response.is_redirect:
            raise ServerError(f"{self.name} refuses ({response.status_code}): {response.text[:SHOWN]}", where=where)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise ServerError(
                f"{self.name} does not answer with JSON but with {response.text[:SHOWN]!r}",
                where=where,
                remedy="Does `url` name the right server?",
            ) from error

    def unexpected(self, path: str, content: Any) -> ServerError:
        """The error that an answer has another form than it should."""
        where = f"{self.client.base_url}".rstrip("/") + path
        return ServerError(f"{self.name} answers something unexpected: {str(content)[:SHOWN]}", where=where)
