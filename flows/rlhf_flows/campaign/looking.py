"""What a stage that reads the feedback store would find now, without keeping anything of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlhf_core.errors import RlhfError
from rlhf_core.run import Run
from rlhf_flows.artifact_store import ArtifactStore, Ref
from rlhf_flows.engine.scheduler import Memory
from rlhf_flows.graph import Node
from rlhf_flows.stages.context import StageContext, StageResult, body_of


def look(node: Node, memory: Memory, artifacts: ArtifactStore, store_url: str) -> StageResult | None:
    """The result of a node that is not cached; None where its stage would raise an error, which a run will say."""
    with tempfile.TemporaryDirectory() as scratch:
        context = StageContext(node, memory.inputs(node), memory.registry, artifacts, Run(), Path(scratch), store_url)
        try:
            outcome = body_of(node)(context)
        except RlhfError:
            return None
    assert outcome.digest is not None, f"{node.id} reads the store and does not name its content"
    ref = Ref(kind=node.gives, uri=f"{node.gives}/{outcome.digest}", sha256=outcome.digest)
    return StageResult(ref=ref, metrics=outcome.metrics, info=outcome.info)
