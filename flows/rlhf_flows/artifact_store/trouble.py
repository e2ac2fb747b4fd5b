"""What the errors of object stores mean: whether waiting helps, and what to tell the reader."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from rlhf_core.errors import RlhfError, ServerError

# Every library has errors of its own for the same few troubles. They are told by their names, since none of the
# libraries has to be installed.
_AWAY = {
    "ClientConnectionError",  # aiohttp
    "ClientPayloadError",
    "ConnectTimeoutError",  # botocore
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseStreamingError",
    "ResponseParserError",
    "FSTimeoutError",  # fsspec
    "ServiceRequestError",  # azure
    "ServiceResponseError",
    "TransportError",  # google
}
_NEVER_AWAY = ("SSL", "Certificate")
_AWAY_NUMBERS = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EBUSY,  # what s3fs makes of "slow down" and 503
    getattr(errno, "EREMOTEIO", errno.EIO),  # what s3fs makes of 500
}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
}
_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "aiohttp", "gcsfs", "google", "azure", "adlfs", "fsspec")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist", "container does not exist")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    for each in _chain(error):
        names = {kind.__name__ for kind in type(each).__mro__}
        if any(word in name for word in _NEVER_AWAY for name in names):
            return False
        if _code(each) == "NoSuchUpload":
            return True  # the store has lost the parts that were sent before it went away
        status = _status(each)
        if status is not None:
            return status in (408, 429) or (status >= 500 and status != 501)
        if isinstance(each, ConnectionError | TimeoutError) or names & _AWAY:
            return True
        if isinstance(each, OSError) and each.errno in _AWAY_NUMBERS:
            return True
    return False


def explained(error: BaseException, url: str, patience: float) -> RlhfError | None:
    """What a request that failed for good means to the reader; None for what only the caller can judge."""
    if any(word in f"{_code(each)} {each}" for each in _chain(error) for word in _NO_BUCKET):
        return ServerError(
            "the bucket of the artifact root does not exist.",
            where=url,
            remedy=f"Create it, or choose another place with RLHF_ARTIFACTS.{_endpoint(url)}",
        )
    if isinstance(error, FileNotFoundError) or is_local(error):
        return None
    if is_transient(error):
        return ServerError(
            f"the artifact store does not answer, also after {patience:.0f} seconds: {_said(error)}",
            where=url,
            remedy=f"When it is back, the same command goes on from here.{_endpoint(url)}",
        )
    if {type(each).__name__ for each in _chain(error)} & _NO_CREDENTIALS:
        return ServerError(
            f"there are no credentials for the artifact store: {_said(error)}",
            where=url,
            remedy=_credentials(url),
        )
    if isinstance(error, PermissionError):
        return ServerError(
            f"the artifact store refuses access: {_said(error)}",
            where=url,
            remedy=f"{_credentials(url)} They need to read, write, list and delete objects there.",
        )
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _LIBRARIES:
        return ServerError(
            f"the artifact store answers with an error: {_said(error)}",
            where=url,
            remedy=f"Check the address and the settings of the store.{_endpoint(url)}",
        )
    return None


def is_local(error: BaseException) -> bool:
    """Whether the disk of this machine refused something, and not the store: only the former names a file."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _status(error: BaseException) -> int | None:
    """The HTTP status that the error carries, however its library calls it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for name in ("status_code", "status", "code"):
        found = getattr(error, name, None)
        if isinstance(found, int) and 100 <= found < 600:
            return found
    return None


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _endpoint(url: str) -> str:
    if not url.startswith("s3"):
        return ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        return f" AWS_ENDPOINT_URL names the server: {endpoint}."
    return " AWS_ENDPOINT_URL names a server other than Amazon's; it is not set."


def _credentials(url: str) -> str:
    if url.startswith("s3"):
        return f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.{_endpoint(url)}"
    if url.startswith(("gs", "gcs")):
        return "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account."
    if url.startswith(("az", "abfs")):
        return "Set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY."
    return "See the documentation of fsspec for this kind of store."
