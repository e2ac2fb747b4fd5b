"""Policies and reward models in MLflow: logged models with their files, registry versions with their evidence."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_core.metrics import Metric
from rlhf_core.tracking.errors import TrackingError
from rlhf_core.tracking.run import TrackedRun

if TYPE_CHECKING:
    from rlhf_core.tracking.tracker import Tracker

ModelKind = Literal["policy", "reward_model"]
CHAMPION = "champion"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from; stored as tags `rlhf.<field>` of its registry version."""

    digest: str
    """Digest of its files."""
    round: int
    campaign: str
    """The campaign run's key."""
    seed: int = 0
    parent_policy: str = ""
    """Digest of the policy that this one was optimised from; empty for the warm start."""
    reward: str = ""
    """Digest of the reward model that it was optimised on."""
    snapshot: str = ""
    """Digest of the feedback that the reward model was fitted on."""
    snapshot_uri: str = ""
    """The snapshot's folder, absolute or relative to the workspace's artifacts."""

    def tags(self) -> dict[str, str]:
        """The fields that say something, as registry tags."""
        values = {f"rlhf.{field.name}": str(getattr(self, field.name)) for field in fields(self)}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Origin:
        """The origin that `tags` tell of."""
        texts = {field.name: tags.get(f"rlhf.{field.name}", "") for field in fields(cls)}
        numbers = {name: int(texts.pop(name) or 0) for name in ("round", "seed")}
        return cls(**texts, **numbers)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a policy or of a reward model."""

    name: str
    version: int
    model_id: str
    """Id of the MLflow logged model that holds the files."""
    run_id: str
    origin: Origin
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    created: int = 0
    """Milliseconds since 1970."""

    @property
    def uri(self) -> str:
        """Address of the files for `mlflow.artifacts.download_artifacts`."""
        return f"models:/{self.name}/{self.version}"

    @property
    def gate(self) -> dict[str, Any] | None:
        """The gate's verdict, `{"promote": bool, "reasons": [...]}`; None before there is one."""
        return json.loads(self.tags["rlhf.gate"]) if "rlhf.gate" in self.tags else None


class ModelRegistry:
    """The registry as the loop uses it. Reached as `Tracker.models`."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log_policy(
        self,
        run: TrackedRun,
        folder: Path,
        name: str,
        origin: Origin,
        metrics: Mapping[str, Metric] | None = None,
        tags: Mapping[str, str] | None = None,
        kind: ModelKind = "policy",
        description: str = "",
    ) -> ModelVersion:
        """Register the model in `folder` as a new version of `name`, made by `run`.

        The files become the logged model's own, as hard links where the artifacts lie on the same disk (`folder` must
        never be written to again). The same digest of the same round and campaign is registered once: repeating the
        call, also after a kill in the middle of it, gives the same version.
        """
        labels = {**(tags or {}), **origin.tags(), "rlhf.kind": kind}
        for known in self._search(name, origin.digest):
            if (known.origin.round, known.origin.campaign) == (origin.round, origin.campaign):
                return known
        model = self._logged_model(run, name, kind, labels)
        self._put_files(model, folder, _card(name, kind, origin, metrics or {}))
        run.log_model_metrics(model.model_id, metrics or {}, origin.round)
        client = self._tracker.client
        client.finalize_logged_model(model.model_id, "READY")
        self._ensure_name(name)
        # MLflow resolves models:/ addresses against the process-wide tracking store, whatever the client's.
        import mlflow

        mlflow.set_tracking_uri(self._tracker.uri)
        address = f"models:/{model.model_id}"
        created = client.create_model_version(
            name, address, run.run_id, labels, description=description, model_id=model.model_id, await_creation_for=None
        )
        # So that the logged model's page says under which name and version it is registered.
        registered = json.dumps([{"name": name, "version": str(created.version)}])
        client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": registered})
        return _version(created)

    def versions(self, name: str, digest: str = "") -> list[ModelVersion]:
        """All versions of a model, oldest first; only those with a digest, where one is given."""
        return self._with_aliases(name, self._search(name, digest))

    def get(self, name: str, which: str | int) -> ModelVersion | None:
        """A version by its number or by an alias; None where there is none. The cost is that of one."""
        client, number = self._tracker.client, str(which)
        try:
            if number.isdigit():
                found = client.get_model_version(name, number)
            else:
                found = client.get_model_version_by_alias(name, number)
        except TrackingError as error:
            # An alias that nothing has is an invalid parameter to MLflow.
            if error.code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return replace(_version(found), aliases=tuple(sorted(found.aliases)))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let `alias` mean this version from now on."""
        self._tracker.client.set_registered_model_alias(name, alias, str(version))

    def drop_alias(self, name: str, alias: str) -> None:
        """Let `alias` mean nothing; where it does already, nothing happens."""
        self._tracker.client.delete_registered_model_alias(name, alias)

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add tags to a version; those that already have the value cost nothing."""
        for name, value in tags.items():
            if version.tags.get(name) != value:
                self._tracker.client.set_model_version_tag(version.name, str(version.version), name, value)

    def record_gate(self, version: ModelVersion, promote: bool, reasons: Sequence[str]) -> None:
        """Write the gate's verdict with its reasons to the version's tags and description."""
        gate = json.dumps({"promote": promote, "reasons": list(reasons)}, ensure_ascii=False)
        self.set_tags(version, {"rlhf.gate": gate, "rlhf.promoted": str(promote).lower()})
        verdict = "Promoted" if promote else "Not promoted"
        text = f"{verdict} in round {version.origin.round}.\n\n" + "\n".join(f"- {reason}" for reason in reasons)
        self._tracker.client.update_model_version(version.name, str(version.version), description=text)

    def _search(self, name: str, digest: str) -> list[ModelVersion]:
        """The versions, oldest first, without their aliases."""
        condition = f"name = '{name}'" + (f" and tags.`rlhf.digest` = '{digest}'" if digest else "")
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._tracker.client.search_model_versions(condition, max_results=1000, page_token=token)
            found += [_version(version) for version in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda version: version.version)

    def _logged_model(self, run: TrackedRun, name: str, kind: ModelKind, tags: Mapping[str, str]) -> Any:
        """The logged model of this run with this digest: the one that a killed process left, or a new one."""
        client, experiment = self._tracker.client, self._tracker.experiment_id
        left = client.search_logged_models([experiment], f"tags.`rlhf.digest` = '{tags['rlhf.digest']}'")
        for model in left:
            if model.source_run_id == run.run_id and model.model_type == kind:
                return model
        title = f"{name}-round-{tags['rlhf.round']}"
        model = client.create_logged_model(experiment, title, run.run_id, tags=dict(tags), model_type=kind)
        from mlflow.entities import LoggedModelOutput

        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, int(tags["rlhf.round"]))])
        return model

    def _put_files(self, model: Any, folder: Path, card: str) -> None:
        place = _local_path(model.artifact_location)
        if place is not None:
            link_tree(folder, place)
            if not (place / "README.md").exists():
                (place / "README.md").write_text(card, encoding="utf-8")
            return
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "README.md").write_text(card, encoding="utf-8")
            for part in (Path(scratch), folder):
                self._tracker.client.log_model_artifacts(model.model_id, str(part))

    def _ensure_name(self, name: str) -> None:
        try:
            self._tracker.client.create_registered_model(name, tags={"rlhf.pipeline": self._tracker.experiment})
        except TrackingError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliases(self, name: str) -> dict[str, str]:
        found = self._tracker.client.search_registered_models(f"name = '{name}'")
        return dict(found[0].aliases) if found else {}

    def _with_aliases(self, name: str, versions: list[ModelVersion]) -> list[ModelVersion]:
        by_number: dict[int, list[str]] = {}
        for alias, number in sorted(self._aliases(name).items()):
            by_number.setdefault(int(number), []).append(alias)
        return [replace(version, aliases=tuple(by_number.get(version.version, ()))) for version in versions]


def link_tree(source: Path, target: Path) -> None:
    """Give every file below `source` a second name below `target`; copies, where the two are not on one disk.

    Files that `target` has already stay as they are.
    """
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir() or place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.draft")
        draft.unlink(missing_ok=True)
        try:
            os.link(path, draft)
        except OSError:
            shutil.copy2(path, draft)
        draft.replace(place)


def _version(version: Any) -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        model_id=version.source.removeprefix("models:/"),
        run_id=version.run_id,
        origin=Origin.of(version.tags),
        tags=dict(version.tags),
        created=int(version.creation_timestamp),
    )


def _local_path(uri: str) -> Path | None:
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme in ("", "file"):
        return Path(urllib.request.url2pathname(parsed.path))
    return None


def _card(name: str, kind: ModelKind, origin: Origin, metrics: Mapping[str, Metric]) -> str:
    """What a stranger who downloads the files reads first."""
    what = "Policy" if kind == "policy" else "Reward model"
    lines = [f"# {name}, round {origin.round}", "", f"{what} of campaign `{origin.campaign}`, seed {origin.seed}.", ""]
    if metrics:
        lines += [
            "| metric | value |",
            "| --- | --- |",
            *(f"| {key} | {metrics[key]} |" for key in sorted(metrics)),
            "",
        ]
    lines += ["| made from | digest |", "| --- | --- |", f"| these files | `{origin.digest}` |"]
    parents = {"policy": origin.parent_policy, "reward model": origin.reward, "feedback": origin.snapshot}
    lines += [f"| {label} | `{digest}` |" for label, digest in parents.items() if digest]
    lines += ["", f"`rlhf lineage {name}` lists the labels behind it.", ""]
    return "\n".join(lines)
