"""The flows on Prefect, the `rlhf` command, and what a flow of one's own is made with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_flows.graph.builder import GraphBuilder, Output
    from rlhf_flows.own import OwnFlow, own_flow
    from rlhf_flows.stages.artifacts_io import load_policy, load_reward, save_into
    from rlhf_flows.stages.context import Outcome, StageContext, StageResult

__all__ = [
    "GraphBuilder", "Outcome", "Output", "OwnFlow", "StageContext", "StageResult", "load_policy", "load_reward",
    "own_flow", "save_into",
]  # fmt: skip

_PLACES = {
    "GraphBuilder": "rlhf_flows.graph.builder",
    "Outcome": "rlhf_flows.stages.context",
    "Output": "rlhf_flows.graph.builder",
    "OwnFlow": "rlhf_flows.own",
    "StageContext": "rlhf_flows.stages.context",
    "StageResult": "rlhf_flows.stages.context",
    "load_policy": "rlhf_flows.stages.artifacts_io",
    "load_reward": "rlhf_flows.stages.artifacts_io",
    "own_flow": "rlhf_flows.own",
    "save_into": "rlhf_flows.stages.artifacts_io",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the command imports this package, too, and has to stay quick.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
