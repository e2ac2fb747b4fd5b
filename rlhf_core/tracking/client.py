"""An MLflow client on a database that is ready: created or migrated once, however many processes ask at once."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_core.files import replaced
from rlhf_core.tracking import object_store
from rlhf_core.tracking.errors import TrackingError

SERVER_PATIENCE = 10.0
"""Seconds an MLflow server has for its first answer."""


QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's settings while we use it: it calls nobody and draws nothing between our progress lines."""


class Client:
    """`mlflow.MlflowClient`, all of it, with failures that are TrackingErrors and name the store."""

    def __init__(self, client: Any, uri: str) -> None:
        self._client = client
        self._uri = uri

    @property
    def store(self) -> Any:
        """The store below, a database or a server, for what `MlflowClient` has no method for: review queues."""
        return self._client._tracking_client.store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @functools.wraps(method)
        def explained(*args: Any, **kwargs: Any) -> Any:
            with refusal_explained(self._uri):
                return method(*args, **kwargs)

        return explained


def connect(uri: str, lock: Path) -> Client:
    """A client for `uri`: a database URL or the address of an MLflow server.

    `lock` names a file that guards creation and migration against other processes. Raises TrackingError where the
    store cannot be reached, written or migrated.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if uri.startswith(("http://", "https://")):
        _expect_server(uri)
    from filelock import FileLock
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # MLflow prints a traceback of every database error that it then raises; raising is enough.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with refusal_explained(uri), FileLock(lock):
        if uri.startswith("sqlite:"):
            _ready_sqlite(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        # The first call to each half opens its store, which creates missing tables: still under the lock.
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return Client(client, uri)


@contextmanager
def refusal_explained(uri: str) -> Iterator[None]:
    """Turn the exceptions of MLflow, and of what it stores artifacts with, into one paragraph with a remedy."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        text = str(error)
        remedy = "`rlhf doctor` checks the stores; the same command goes on where this one stopped."
        if "disk is full" in text or "No space left" in text:
            remedy = "The disk is full. Free some space and run the same command; it goes on from there."
        elif "out-of-date database schema" in text:
            remedy = f"Back the database up, then run `mlflow db upgrade {uri}`."
        refused = TrackingError(f"MLflow refused: {text.splitlines()[0][:300]}", where=uri, remedy=remedy)
        refused.code = error.error_code
        raise refused from error
    except Exception as error:
        # Where artifacts lie in an object store, its library's exceptions come through.
        if (away := object_store.explained(error, uri)) is None:
            raise
        raise away from error


def _expect_server(uri: str) -> None:
    """Fail within seconds where no server answers; MLflow's own retries would take minutes."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_PATIENCE).close()
    except urllib.error.HTTPError:
        return  # It answers; a proxy that hides /health or asks for a login is MLflow's business.
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise TrackingError(
            f"the MLflow server does not answer ({error}).",
            where=uri,
            remedy="Start it, correct RLHF_MLFLOW_URI, or unset RLHF_MLFLOW_URI to use the workspace's own database.",
        ) from error


def _ready_sqlite(uri: str) -> None:
    """Create the database, or bring an older one up to date."""
    import sqlalchemy as sa
    from alembic.util import CommandError
    from mlflow.store.db import utils

    path = Path(sa.make_url(uri).database or "")
    if not path.exists():
        _create_sqlite(path)
        return
    engine = sa.create_engine(uri)
    try:
        if utils._get_schema_version(engine) == utils._get_latest_schema_revision():
            return
        backup = path.with_name(f"{path.name}.before-upgrade")
        shutil.copy2(path, backup)
        utils._upgrade_db(engine)
    except CommandError as error:
        raise TrackingError(
            f"the MLflow database was written by another version of MLflow ({error}).",
            where=str(path),
            remedy="Install that version, or a later one.",
        ) from error
    except sa.exc.DatabaseError as error:
        raise TrackingError(
            f"the MLflow database cannot be read or migrated: {error.orig}.",
            where=str(path),
            remedy="Move it away (a new one is created) or bring a backup back.",
        ) from error
    finally:
        engine.dispose()


def _create_sqlite(path: Path) -> None:
    """Create the database beside its place and move it there complete, so that a kill leaves none or a whole one.

    Nobody else sees the draft, so its fifty-odd migrations need no journal on disk: a second instead of two.
    """
    import sqlalchemy as sa
    from mlflow.store.db import utils

    with replaced(path) as draft:
        engine = sa.create_engine(f"sqlite:///{draft}")

        @sa.event.listens_for(engine, "connect")
        def _unsafe_but_quick(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=MEMORY")

        try:
            utils._initialize_tables(engine)
            with engine.connect() as connection:
                # Readers (the UI) and the one writer then do not wait for each other.
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        finally:
            engine.dispose()
