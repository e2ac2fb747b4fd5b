"""Results of stages, named by their content, in a folder or an object store."""

from rlhf_flows.artifact_store.manifest import tree_digest
from rlhf_flows.artifact_store.ref import DamagedArtifact, Ref
from rlhf_flows.artifact_store.store import ArtifactStore

__all__ = ["ArtifactStore", "DamagedArtifact", "Ref", "tree_digest"]
