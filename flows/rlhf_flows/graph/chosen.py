"""The plugins that nodes name: found and checked, those inside plugins too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import create_model

from rlhf_core.pipeline.parts import ChosenPlugin, Misfit, choose
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_flows.graph.node import Graph, Role


def chosen_in(roles: Sequence[Role], registry: Registry) -> tuple[list[ChosenPlugin], list[Misfit]]:
    """The plugins in roles and those that they name in turn, and what is wrong with some, by role."""
    grouped: dict[str, list[Role]] = {}
    for role in roles:
        grouped.setdefault(role.role, []).append(role)
    fields: dict[str, Any] = {
        name: (Annotated[tuple[Use, ...], Use.of(several[0].kind)], ...) for name, several in grouped.items()
    }
    model = create_model("Roles", **fields)
    return choose(model(**{name: tuple(each.use for each in several) for name, several in grouped.items()}), registry)


def plugins_in(graphs: Iterable[Graph], registry: Registry) -> dict[str, str]:
    """Kind and name -> distribution and version of every plugin that takes part, sorted."""
    sources: dict[str, set[str]] = {}
    for node in (node for graph in graphs for node in graph):
        for part in chosen_in(node.plugins, registry)[0]:
            source = f"{part.info.distribution} {part.info.version}"
            sources.setdefault(f"{part.kind}/{part.info.name}", set()).add(source)
    return {name: " and ".join(sorted(found)) for name, found in sorted(sources.items())}
