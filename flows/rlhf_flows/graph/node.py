"""Nodes and graphs: plain JSON that says everything a worker on any machine needs to know of a stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, JsonValue

from rlhf_core.plugins.base import Use


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Role(_Plain):
    """A plugin that a stage works with."""

    role: str
    """What it is in the stage, such as `policy`, `judge`, `annotator`; several plugins may share one."""
    kind: str
    """Kind of the plugin, such as `reward_models`."""
    use: Use


class Input(_Plain):
    """An artifact that a node takes."""

    node: str
    """Id of the node that gives it; of the same graph, or of an earlier one of the campaign."""
    kind: str
    """Kind of the artifact."""


class Node(_Plain):
    """One stage of a round: what is done, by which plugins, with which settings and seed, from which artifacts."""

    id: str
    """`ROUND/NAME`, unique in a campaign."""
    name: str
    """Name of the stage in its round, such as `evaluate_win_rate`."""
    stage: str
    """The kind of work, which `run_on` and `stages` of a pipeline refer to: `evaluate`, `answers`, `optimize`."""
    body: str
    """The function that does it, `module:function`."""
    title: str
    """The word in the progress display."""
    gives: str
    """Kind of the artifact that it writes."""
    pipeline: str
    """Name of the pipeline."""
    round: int = 0
    seed: int = 0
    """31 bits; all randomness of the stage follows from it."""
    plugins: tuple[Role, ...] = ()
    settings: dict[str, JsonValue] = {}
    inputs: dict[str, Input] = {}
    """By the name under which the stage's body asks for it."""
    reads_metrics: bool = False
    """Whether the result depends on the metrics of the inputs, and not only on their files."""
    cached: bool = True
    """False for a stage that reads the feedback store: it runs each time and names its result by its content."""

    def of_role(self, role: str) -> tuple[Use, ...]:
        """The plugins in a role, in the pipeline's order."""
        return tuple(each.use for each in self.plugins if each.role == role)

    @property
    def predecessors(self) -> tuple[str, ...]:
        """Ids of the nodes that it needs, each once, sorted."""
        return tuple(sorted({given.node for given in self.inputs.values()}))


class Graph(_Plain):
    """The nodes of one part of a campaign, each after those that it needs."""

    pipeline: str
    round: int
    nodes: tuple[Node, ...] = ()

    def __iter__(self) -> Iterator[Node]:  # type: ignore[override]
        return iter(self.nodes)

    def __getitem__(self, identity: str) -> Node:
        for node in self.nodes:
            if node.id == identity:
                return node
        raise KeyError(identity)

    def __contains__(self, identity: object) -> bool:
        return any(node.id == identity for node in self.nodes)

    def outside(self) -> tuple[Input, ...]:
        """The artifacts that come from outside, each once: earlier rounds' results."""
        own = {node.id for node in self.nodes}
        given = {each.node: each for node in self.nodes for each in node.inputs.values() if each.node not in own}
        return tuple(given[name] for name in sorted(given))


def node_seed(seed: int, name: str, round_: int) -> int:
    """A stage's own seed, 31 bits, from the pipeline's seed, the stage and the round."""
    digest = hashlib.sha256(f"{seed}/{name}/{round_}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes, each after those that it needs. Raises ValueError for a circle."""
    done: dict[str, Node] = {}
    waiting = dict(nodes)
    while waiting:
        ready = [node for node in waiting.values() if not any(name in waiting for name in node.predecessors)]
        if not ready:
            raise ValueError(f"these stages need each other in a circle: {', '.join(sorted(waiting))}")
        for node in ready:
            done[node.id] = waiting.pop(node.id)
    return list(done.values())
