"""What a worker on any machine is told of one stage: plain JSON, no object and no secret."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import WorkspaceError
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.graph import Node
from rlhf_flows.graph.keys import Ingredients
from rlhf_flows.stages.context import StageResult
from rlhf_flows.workspace import Workspace

if TYPE_CHECKING:
    from rlhf_core.tracking.tracker import Tracker


class Place(BaseModel):
    """Where a campaign's things lie, by addresses that every worker understands.

    Addresses that may hold a password are not among them: a worker on another machine has them in its environment
    (RLHF_STORE_URL, RLHF_MLFLOW_URI), as the run that it works for has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: str
    """The workspace's folder on the machine of the run."""
    artifacts: str
    """Root of the artifacts: a folder or a URL."""

    def here(self) -> Workspace:
        """The workspace on this machine: the same folder where it is there, else one of this machine's own, which
        holds checkpoints and fetched artifacts only. Raises WorkspaceError where feedback would lie in it.
        """
        folder = Path(self.workspace)
        if folder.is_dir():
            return Workspace(folder, self.artifacts)
        if not os.environ.get("RLHF_STORE_URL") or not os.environ.get("RLHF_MLFLOW_URI"):
            raise WorkspaceError(
                "this worker does not see the workspace, and knows no server instead.",
                where=self.workspace,
                remedy="Share the folder, or set RLHF_STORE_URL, RLHF_MLFLOW_URI and RLHF_ARTIFACTS on every machine.",
            )
        own = os.environ.get("RLHF_WORKSPACE") or Path.home() / ".cache" / "rlhf" / "worker"
        return Workspace.open(Path(own), self.artifacts)


class Tracked(BaseModel):
    """The MLflow run that a stage's run is made below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parent: str
    """Run id of the round."""
    root: str
    """Run id of the campaign."""
    key: str
    """Key of the campaign, which the stage's key follows."""


class Job(BaseModel):
    """One stage to be done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: Node
    key: str
    ingredients: Ingredients
    """What the key was made of: a worker with other code than the run's is told so, and stops."""
    place: Place
    tracked: Tracked
    variables: tuple[str, ...] = ()
    """Names of the variables that lead the run to its servers: a worker without them would read and write elsewhere."""
    known: StageResult | None = None
    """The result, where it is known already and nothing has to be done."""

    def expect_servers(self) -> None:
        """Raise WorkspaceError where this process lacks a variable that leads the run to a server."""
        missing = [name for name in self.variables if not os.environ.get(name)]
        if missing:
            raise WorkspaceError(
                f"this worker does not know the servers that the run uses: {' and '.join(missing)} not set.",
                where=f"stage {self.node.id} on {socket.gethostname()}",
                remedy="Start workers with the variables that the run has.",
            )


def server_variables() -> tuple[str, ...]:
    """Which variables lead this process to servers."""
    return tuple(name for name in ("RLHF_STORE_URL", "RLHF_MLFLOW_URI") if os.environ.get(name))


@lru_cache(maxsize=8)
def artifacts_of(place: Place) -> ArtifactStore:
    """The artifact store, one for each process: what it has verified stays verified."""
    return place.here().open_artifacts()


@lru_cache(maxsize=8)
def tracker_of(place: Place, pipeline: str) -> Tracker:
    """The MLflow tracker of a pipeline, one for each process."""
    from rlhf_core.tracking.tracker import Tracker

    workspace = place.here()
    return Tracker.open(workspace.folder, pipeline, workspace.mlflow_uri, workspace.mlflow_artifacts)
