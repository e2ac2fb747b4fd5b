"""A graph as JSON, for programs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from rlhf_flows.graph.render.safe import options, shown
from rlhf_flows.graph.states import NodeState, by_round


def to_json(states: Sequence[NodeState]) -> dict[str, JsonValue]:
    """The graph as plain JSON: stable, so that programs may rely on it.

    `{"pipeline": name, "rounds": [{"round": number, "nodes": [node, ...]}, ...]}`, where a node is

    - `id` (`ROUND/NAME`), `name`, `stage`; `gives`: the kind of the artifact that it writes;
    - `plugins`: `{"role", "kind", "use", "options"}` each, in the pipeline's order; secrets in options are `***`;
    - `inputs`: by name `{"node": id, "kind": kind of the artifact}`, all of them, whatever the drawings leave out;
    - `predecessors`: the ids of the nodes that it needs, sorted, each once; of this document or of an earlier round;
    - `state`: `cached`, `run`, `after` (a stage that has to run first decides) or `waits` (for people);
    - `key`: the cache key, empty where it cannot be known yet; `why` it would run although it ran before;
    - `runs_on`, empty for this machine; `result`: one line about the known result.
    """
    rounds: list[JsonValue] = [
        {"round": number, "nodes": [_node(state) for state in members]} for number, members in by_round(states).items()
    ]
    return {"pipeline": states[0].node.pipeline if states else "", "rounds": rounds}


def _node(state: NodeState) -> dict[str, JsonValue]:
    node = state.node
    return {
        "id": node.id,
        "name": node.name,
        "stage": node.stage,
        "gives": node.gives,
        "plugins": [
            {"role": each.role, "kind": each.kind, "use": each.use.use, "options": options(each.use)}
            for each in node.plugins
        ],
        "inputs": {name: {"node": given.node, "kind": given.kind} for name, given in node.inputs.items()},
        "predecessors": list(node.predecessors),
        "state": state.state,
        "key": state.key,
        "why": shown(state.why),
        "runs_on": shown(state.runs_on),
        "result": shown(state.result),
    }
