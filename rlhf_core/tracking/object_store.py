"""MLflow's artifacts in an object store: its address as MLflow writes it, the library behind it, and its errors."""

from __future__ import annotations

import importlib
import os
import urllib.parse
from typing import NamedTuple

from rlhf_core.tracking.errors import TrackingError


class _Service(NamedTuple):
    """What MLflow reaches one kind of store with."""

    module: str
    packages: str
    """What to install."""
    hint: str
    """What to look at where it fails."""


SERVICES = {
    "s3": _Service(
        "boto3",
        '"rlhf-pipeline[s3]"',
        "Check the bucket, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is not Amazon's",
    ),
    "gs": _Service(
        "google.cloud.storage", "google-cloud-storage", "Check GOOGLE_APPLICATION_CREDENTIALS and the bucket"
    ),
    "wasbs": _Service(
        "azure.storage.blob",
        "azure-storage-blob azure-identity",
        "Check the container, and AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    ),
}
"""By the schemes of MLflow's addresses."""
SPEAKERS = {"boto3": "s3", "botocore": "s3", "s3transfer": "s3", "google": "gs", "azure": "wasbs"}
"""Libraries whose exceptions MLflow lets through, and whose store they speak of."""


def location(root: str) -> str:
    """The address `root` (`s3://bucket/folder`, `gs://...`, `az://container/folder`) as MLflow writes it.

    Raises TrackingError where the library that reaches such a store is missing, and for `az://` without an account.
    """
    parsed = urllib.parse.urlsplit(root)
    scheme = {"gcs": "gs", "az": "wasbs", "abfs": "wasbs"}.get(parsed.scheme, parsed.scheme)
    if service := SERVICES.get(scheme):
        try:
            importlib.import_module(service.module)
        except ImportError as error:
            raise missing(scheme, root) from error
    place = parsed.netloc
    if scheme == "wasbs" and "@" not in place:
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if not account:
            raise TrackingError(
                "MLflow writes the name of the storage account into its addresses, and it is not known.",
                where=root,
                remedy="Set AZURE_STORAGE_ACCOUNT_NAME.",
            )
        place = f"{place}@{account}.blob.core.windows.net"
    return root if scheme == parsed.scheme else f"{scheme}://{place}{parsed.path}"


def missing(scheme: str, where: str) -> TrackingError:
    """The library for the scheme's stores is not installed."""
    service = SERVICES[scheme]
    return TrackingError(
        f"MLflow reaches its artifacts through {service.module}, which is not installed.",
        where=where,
        remedy=f"Run `pip install {service.packages}`.",
    )


def explained(error: Exception, where: str) -> TrackingError | None:
    """What an exception of such a library says, in a paragraph; None where `error` is something else."""
    library = (error.name or "") if isinstance(error, ImportError) else type(error).__module__
    scheme = SPEAKERS.get(library.partition(".")[0])
    if scheme is None:
        return None
    if isinstance(error, ImportError):
        return missing(scheme, where)
    text = " ".join(str(error).split())[:300].rstrip(".")
    remedy = f"{SERVICES[scheme].hint}; the same command goes on where this one stopped."
    return TrackingError(f"MLflow's artifacts cannot be reached: {text}.", where=where, remedy=remedy)
