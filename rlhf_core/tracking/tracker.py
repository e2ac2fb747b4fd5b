"""Campaigns, rounds and stages as MLflow runs that a killed and repeated command finds again and goes on in."""

from __future__ import annotations

import getpass
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhf_core.tracking import object_store
from rlhf_core.tracking.client import Client, connect
from rlhf_core.tracking.errors import TrackingError
from rlhf_core.tracking.registry import ModelRegistry
from rlhf_core.tracking.run import TrackedRun

KEY_TAG = "rlhf.key"
ROOT_TAG = "rlhf.root"
"""Run id of the campaign, on every run below it."""


class Tracker:
    """One experiment (a pipeline) in one MLflow store. May be used from several threads.

    Cheap to construct: MLflow is imported and the database made ready by the first use, or ahead of it by `prepare`.
    """

    def __init__(self, uri: str, artifact_root: str | Path | None, experiment: str, lock: Path) -> None:
        self.uri = uri
        """Database URL, or address of an MLflow server."""
        self.artifact_root = artifact_root
        """Where artifacts of a new experiment lie: a folder or an address (s3://...); None lets a server decide."""
        self.experiment = experiment
        self.lock = lock
        self.models = ModelRegistry(self)
        """Policies and reward models."""
        self._connecting = threading.RLock()
        self._client: Client | None = None

    @classmethod
    def open(
        cls, workspace: Path, experiment: str, uri: str | None = None, artifact_root: str | Path | None = None
    ) -> Tracker:
        """The tracker of a workspace: its own SQLite database and artifact folder, unless `uri` names another store and
        `artifact_root` another folder, or an object store by its URL (`s3://bucket/folder`).
        """
        workspace = workspace.absolute()
        workspace.mkdir(parents=True, exist_ok=True)
        if uri is None:
            uri = f"sqlite:///{workspace / 'mlflow.db'}"
        if artifact_root is None and not uri.startswith("http"):
            artifact_root = workspace / "artifacts" / "mlflow"
        return cls(uri, artifact_root, experiment, lock=workspace / "mlflow.lock")

    @classmethod
    def at(cls, uri: str, experiment: str) -> Tracker:
        """The tracker of an experiment whose store is known by its address alone, as on another machine."""
        if uri.startswith("sqlite:///"):
            lock = Path(uri.removeprefix("sqlite:///")).with_name("mlflow.lock")
        else:
            lock = Path(tempfile.gettempdir()) / f"rlhf-mlflow-{_user()}.lock"
        return cls(uri, None, experiment, lock)

    def prepare(self) -> Tracker:
        """Import MLflow and make the store ready in the background. A failure shows at the first use."""

        def work() -> None:
            with suppress(Exception):
                _ = self.experiment_id

        threading.Thread(target=work, name="mlflow-prepare", daemon=True).start()
        return self

    @property
    def client(self) -> Client:
        """The MLflow client, bound to this store and to no active run."""
        with self._connecting:
            if self._client is None:
                self._client = connect(self.uri, self.lock)
            return self._client

    @property
    def experiment_id(self) -> str:
        """Id of the experiment, created where there is none and brought back where it was deleted in the UI."""
        with self._connecting:
            return self._experiment_id

    @cached_property
    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            root = self.artifact_root
            location = root.absolute().as_uri() if isinstance(root, Path) else root and object_store.location(root)
            try:
                # The UI then opens with training runs, not with the traces of an agent.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return str(self.client.create_experiment(self.experiment, artifact_location=location, tags=kind))
            except TrackingError as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(self.experiment)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def campaign(
        self, key: str, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> TrackedRun:
        """The campaign whose tag `rlhf.key` is `key`, running again, or a new one.

        Runs below it that a killed process left RUNNING become KILLED; those that are gone on with run again.
        """
        run = self._run(key, name, {**(tags or {}), "rlhf.level": "campaign"})
        if run.resumed:
            left = self.client.search_runs(
                [self.experiment_id], f"tags.`{ROOT_TAG}` = '{run.run_id}' and attributes.status = 'RUNNING'"
            )
            for child in left:
                self.client.set_terminated(child.info.run_id, "KILLED")
        if params:
            run.log_params(params)
        return run

    def find(self, key: str) -> TrackedRun | None:
        """The run with this key as it stands, whatever its status; None where there is none."""
        found = self._search(key)
        return TrackedRun(self, found, key, resumed=True) if found is not None else None

    def run(self, run_id: str, key: str) -> TrackedRun:
        """The run with this id, which was made under `key`, as it stands, without a search.

        Raises TrackingError where there is none, where it was deleted, or where it has another key.
        """
        found = self.client.get_run(run_id)
        known = found.data.tags.get(KEY_TAG, "")
        if found.info.lifecycle_stage == "deleted" or known != key:
            what = "was deleted" if known == key else f"belongs to `{known}`, not to `{key}`"
            raise TrackingError(
                f"the MLflow run {run_id} {what}.",
                where=self.uri,
                remedy="Restore it in MLflow's user interface, or run the same command again: it makes a new one.",
            )
        return TrackedRun(self, found, key, resumed=True)

    def child_of(
        self, parent_run_id: str, root_run_id: str, key: str, name: str, tags: Mapping[str, str] | None = None
    ) -> TrackedRun:
        """The run whose tag `rlhf.key` is `key`, running again, or a new one below the run `parent_run_id` of the
        campaign `root_run_id`. Ids are enough, so that a worker on another machine can log there.
        """
        place = {ROOT_TAG: root_run_id, "mlflow.parentRunId": parent_run_id}
        return self._run(key, name, {**(tags or {}), **place})

    def path(self, run_id: str = "") -> str:
        """The run's page, or the experiment's, to be put behind the address of the MLflow UI."""
        place = f"#/experiments/{self.experiment_id}" + (f"/runs/{run_id}" if run_id else "")
        # With the menu for runs and models; the UI's own choice is the one for agents and traces.
        return f"{place}?workflowType=machine_learning"

    def _search(self, key: str) -> Any:
        if "'" in key or "`" in key:
            raise ValueError(f"a run's key holds no quotes: {key}")
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _run(self, key: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
        found = self._search(key)
        if found is not None:
            if found.info.status != "RUNNING":
                self.client.update_run(found.info.run_id, status="RUNNING")
            run = TrackedRun(self, found, key, resumed=True)
            run.set_tags(tags)
            return run
        everything = {**tags, KEY_TAG: key, "mlflow.source.name": "rlhf", "mlflow.user": _user()}
        created = self.client.create_run(self.experiment_id, tags=everything, run_name=name)
        return TrackedRun(self, created, key, resumed=False)

    def child(self, parent: TrackedRun, key: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
        """A run below `parent`: see `TrackedRun.child`."""
        return self.child_of(parent.run_id, parent.root_id, key, name, tags)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container whose user has no name.
        return "unknown"
