"""The nodes of a graph under construction, and how they are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import JsonValue

from rlhf_core.plugins import Use
from rlhf_flows.graph.node import Graph, Input, Node, Role, in_order, node_seed

STAGES = "rlhf_flows.stages"
"""The package of the stages' bodies."""
U = TypeVar("U", bound=Use)


@dataclass
class Draft:
    """A graph that nodes are added to, each after those that it needs."""

    pipeline: str
    seed: int
    round: int
    nodes: dict[str, Node] = field(default_factory=dict)

    def add(
        self,
        name: str,
        body: str,
        gives: str,
        *,
        stage: str = "",
        title: str = "",
        plugins: Sequence[Role | None] = (),
        settings: dict[str, JsonValue] | None = None,
        inputs: dict[str, Input | None] | None = None,
        reads_metrics: bool = False,
        cached: bool = True,
        seed_of: str = "",
    ) -> Input:
        """Add a node; what another node takes from it. A part of another stage's work has the seed of that one."""
        identity = f"{self.round}/{name}"
        self.nodes[identity] = Node(
            id=identity,
            name=name,
            stage=stage or name,
            body=f"{STAGES}.{body}",
            title=title or name.replace("_", " "),
            gives=gives,
            pipeline=self.pipeline,
            round=self.round,
            seed=node_seed(self.seed, seed_of or name, self.round),
            plugins=tuple(role for role in plugins if role is not None),
            settings=settings or {},
            inputs={key: given for key, given in (inputs or {}).items() if given is not None},
            reads_metrics=reads_metrics,
            cached=cached,
        )
        return Input(node=identity, kind=gives)

    def graph(self) -> Graph:
        """What was added."""
        return Graph(pipeline=self.pipeline, round=self.round, nodes=tuple(in_order(self.nodes)))


def policy_node(number: int) -> str:
    """Id of the node that makes a round's policy."""
    return f"{number}/optimize" if number else "0/warm_start"


def policy_of(number: int) -> Input:
    """A round's policy."""
    return Input(node=policy_node(number), kind="policy")


def samples_of(number: int) -> Input:
    """What a round's policy answers to the held-out prompts."""
    return Input(node=f"{number}/samples", kind="samples")


def role(name: str, kind: str, use: Use | None) -> Role | None:
    """A plugin in a role; None where there is no plugin."""
    return None if use is None else Role(role=name, kind=kind, use=use)


def named(prefix: str, uses: Sequence[U]) -> list[tuple[str, U]]:
    """Plugins with the names of their stages: `PREFIX_plugin`, with its place where one name stands twice."""
    found: dict[str, U] = {}
    for place, use in enumerate(uses):
        name = f"{prefix}_{use.use.rpartition('/')[2]}"
        while name in found:
            name = f"{name}_{place}"
        found[name] = use
    return list(found.items())


def numbered(prefix: str, given: Sequence[Input]) -> dict[str, Input | None]:
    """Several inputs as `PREFIX_0`, `PREFIX_1`, ..."""
    return {f"{prefix}_{i}": each for i, each in enumerate(given)}
