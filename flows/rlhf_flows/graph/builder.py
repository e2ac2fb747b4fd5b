"""Graphs of one's own: built-in stages by name, functions of one's own beside them, checked as they are added."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import JsonValue, ValidationError

from rlhf_core.errors import PipelineError, PluginError
from rlhf_core.pipeline.config_errors import did_you_mean
from rlhf_core.pipeline.parts import dotted
from rlhf_core.pipeline.placement import StageName
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_flows.graph.catalogue import STAGES, Part, Stage, Taken, givers, kinds_of_role
from rlhf_flows.graph.chosen import chosen_in
from rlhf_flows.graph.node import Graph, Input, Node, Role, in_order, node_seed

PLACE = "rlhf_flows.stages"
"""The package of the built-in stages' bodies."""
Plugin: TypeAlias = str | Use | Mapping[str, Any]
"""A plugin: its name, or `{"use": name, ...}` as in a pipeline file."""


@dataclass(frozen=True)
class Output:
    """What a stage gives, to be handed to other stages, also to those of later rounds."""

    stage: str
    """Name of the stage."""
    node: str
    """`ROUND/NAME`."""
    kind: str
    """Kind of the artifact."""
    use: Use | None = None
    """The plugin that made the artifact and reads it, of policies and reward models; of answers, who gave them."""


class GraphBuilder:
    """The graph of one round of a flow of one's own. Nothing runs here: `OwnFlow.run` does."""

    def __init__(self, flow: str, round_: int, seed: int, registry: Registry) -> None:
        self.flow = flow
        self.round = round_
        self.seed = seed
        self.registry = registry
        self._nodes: dict[str, Node] = {}

    def add(
        self,
        what: str | Callable[..., Any],
        name: str = "",
        *,
        plugins: Mapping[str, Plugin | Sequence[Plugin]] | None = None,
        settings: Mapping[str, JsonValue] | None = None,
        gives: str = "",
        like: StageName = "steps",
        reads_metrics: bool = False,
        **inputs: Output | Sequence[Output] | None,
    ) -> Output:
        """Add a stage; what it gives.

        `what` is a built-in stage by its name (`reward`), or a function `(StageContext) -> Outcome`, itself or as
        `module:function`. A second stage of the same kind needs a `name`. `plugins` are by role; where an input brings
        a policy or a reward model, its own plugin is taken. `inputs` are by the names under which the stage asks for
        them; several of one name as a list. Only for a function: `gives`, the kind of what it writes; `like`, the
        built-in stage whose `run_on`, retries and time limit are its own; `reads_metrics`, whether its result depends
        on the metrics of its inputs, too.

        Raises PipelineError where something does not fit, PluginError where a plugin is unknown.
        """
        own = not isinstance(what, str) or ":" in what
        stage = _own(what, gives, like, reads_metrics) if own else self._built_in(str(what))
        name = name or (stage.body.rpartition(":")[2] if own else str(what))
        where = f"{self.flow}, round {self.round}, stage `{name}`"
        if not own and (gives or reads_metrics or like != "steps"):
            raise PipelineError("`gives`, `like` and `reads_metrics` are for functions of one's own.", where=where)
        if f"{self.round}/{name}" in self._nodes:
            raise PipelineError(
                f"the round has a stage `{name}` already.",
                where=where,
                remedy='Give it another name: add(..., "NAME").',
            )
        given = _inputs(stage, inputs, own, where)
        roles = self._roles(stage, plugins or {}, given, own, where)
        self._expect_feedback(stage, roles, given, where)
        taken = {key: Input(node=output.node, kind=output.kind) for key, output in given.items()}
        node = Node(
            id=f"{self.round}/{name}",
            name=name,
            stage=stage.stage,
            body=stage.body if own else f"{PLACE}.{stage.body}",
            title=stage.title if stage.title and name == what else name.replace("_", " "),
            gives=stage.gives,
            pipeline=self.flow,
            round=self.round,
            seed=node_seed(self.seed, name, self.round),
            plugins=roles,
            settings=self._settings(stage, settings or {}, given, own, where),
            inputs=taken,
            reads_metrics=stage.reads_metrics,
            cached=stage.cached,
        )
        self._nodes[node.id] = node
        return Output(name, node.id, stage.gives, _reader(node))

    def graph(self) -> Graph:
        """The graph so far."""
        return Graph(pipeline=self.flow, round=self.round, nodes=tuple(in_order(self._nodes)))

    def _built_in(self, name: str) -> Stage:
        if name not in STAGES:
            raise PipelineError(
                f"there is no built-in stage called `{name}`{did_you_mean(name, list(STAGES))}",
                where=f"{self.flow}, round {self.round}",
                remedy="For a stage of your own give the function itself, or `module:function`.",
            )
        return STAGES[name]

    def _roles(
        self,
        stage: Stage,
        plugins: Mapping[str, Plugin | Sequence[Plugin]],
        given: Mapping[str, Output],
        own: bool,
        where: str,
    ) -> tuple[Role, ...]:
        parts = {name: Part(kind, several=True) for name, kind in kinds_of_role().items()} if own else stage.parts
        for role in plugins:
            if role not in parts:
                raise PipelineError(f"it has no plugin as `{role}`{did_you_mean(role, list(parts))}", where=where)
        roles: list[Role] = []
        for role, part in parts.items():
            uses = _uses(plugins.get(role, ()), f"{where}, plugin `{role}`")
            brought = given[part.of].use if part.of in given else None
            uses = uses or ([brought] if brought is not None else [])
            if part.needed and not uses:
                remedy = f"Name one: plugins={{{role!r}: {{'use': ...}}}}."
                raise PipelineError(f"it needs a plugin as `{role}` ({part.kind}).", where=where, remedy=remedy)
            if len(uses) > 1 and not part.several:
                raise PipelineError(f"it takes one plugin as `{role}`, not {len(uses)}.", where=where)
            roles += [Role(role=role, kind=part.kind, use=use) for use in uses]
        _, misfits = chosen_in(roles, self.registry)
        if misfits:
            place = dotted(misfits[0].loc)
            raise PluginError(misfits[0].what, where=f"{where}, plugin `{place}`", remedy=misfits[0].remedy)
        return tuple(roles)

    def _expect_feedback(self, stage: Stage, roles: Sequence[Role], given: Mapping[str, Output], where: str) -> None:
        """A reward model that learns is handed feedback."""
        fitted = [role.use.use for role in roles if role.role == stage.gives == "reward"]
        for name in fitted if "snapshot" in stage.takes and "snapshot" not in given else ():
            plugin: Any = self.registry.load("reward_models", name)
            if frozenset(plugin.learns_from):
                raise PipelineError(f"`{name}` learns from feedback: it needs a `snapshot`.", where=where)

    def _settings(
        self, stage: Stage, settings: Mapping[str, JsonValue], given: Mapping[str, Output], own: bool, where: str
    ) -> dict[str, JsonValue]:
        if own:
            return dict(settings)
        for name in settings:
            if name not in stage.settings:
                raise PipelineError(
                    f"it has no setting `{name}`{did_you_mean(name, list(stage.settings))}", where=where
                )
        defaults = dict(stage.settings)
        if "seed" in defaults:
            defaults["seed"] = self.seed
        if "asked" in defaults:
            defaults["asked"] = self._asked(given)
        return {**defaults, **settings}

    def _asked(self, given: Mapping[str, Output]) -> list[JsonValue]:
        """Who was asked: part of what a snapshot is of, so that others who are asked move the moment it is taken at."""
        uses = [output.use for output in given.values() if output.kind == "answers" and output.use is not None]
        return [content_id(self.registry.fingerprint("annotators", use)) for use in uses]


def _own(what: str | Callable[..., Any], gives: str, like: StageName, reads_metrics: bool) -> Stage:
    """A function as a stage."""
    body = what if isinstance(what, str) else _address(what)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", gives):
        raise PipelineError(
            f"stage `{body}` should say what kind of artifact it gives, in lower-case letters: `gives={gives!r}`.",
            remedy='`gives="reward"` for a reward model that other stages take; any word for what only yours take.',
        )
    return Stage(like, body, gives, {}, {}, reads_metrics=reads_metrics)


def _address(function: Callable[..., Any]) -> str:
    """`module:function`, by which a worker in another process finds it."""
    module, name = function.__module__, function.__qualname__
    if module == "__main__":
        main: Any = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else ""
    if not module or "<" in name or "." in name:
        raise PipelineError(
            f"`{name}` cannot be a stage: workers find a stage's function by its module and name.",
            remedy="Define it at the top level of a file, outside notebooks and other functions.",
        )
    return f"{module}:{name}"


def _inputs(
    stage: Stage, inputs: Mapping[str, Output | Sequence[Output] | None], own: bool, where: str
) -> dict[str, Output]:
    """The inputs by the names under which the body asks for them, checked."""
    found: dict[str, Output] = {}
    for name, value in inputs.items():
        taken = Taken("*") if own else stage.takes.get(name)
        if taken is None:
            remedy = f"It takes {', '.join(stage.takes) or 'nothing'}."
            raise PipelineError(f"it takes no `{name}`.", where=where, remedy=remedy)
        several: list[Any] = list(value) if isinstance(value, list | tuple) else [value] if value is not None else []
        for output in several:
            _fits(name, taken, output, where)
        if taken.several or (own and isinstance(value, list | tuple)):
            found |= {f"{name}_{i}": output for i, output in enumerate(several)}
        elif len(several) > 1:
            raise PipelineError(f"it takes one `{name}`, not {len(several)}.", where=where)
        elif several:
            found[name] = several[0]
    for name, taken in stage.takes.items():
        if taken.needed and name not in found and f"{name}_0" not in found:
            raise PipelineError(f"it needs `{name}`{_from(taken.kind)}.", where=where)
    return found


def _fits(name: str, taken: Taken, output: object, where: str) -> None:
    if not isinstance(output, Output):
        raise PipelineError(f"`{name}` should be what another stage gave, not {output!r}.", where=where)
    if taken.kind not in ("*", output.kind):
        raise PipelineError(
            f"`{name}` should be of the kind {taken.kind}, and stage `{output.stage}` gives {output.kind}.",
            where=where,
            remedy=f"These built-in stages give it: {', '.join(givers(taken.kind))}; or a function of your own.",
        )


def _from(kind: str) -> str:
    names = " or ".join(f"`{name}`" for name in givers(kind))
    return f", which {names} gives" if names else ""


def _uses(given: Plugin | Sequence[Plugin], where: str) -> list[Use]:
    several = [given] if isinstance(given, str | Use | Mapping) else list(given)
    try:
        return [Use(use=each) if isinstance(each, str) else Use.model_validate(each) for each in several]
    except ValidationError as error:
        raise PipelineError(
            "a plugin is written as its name, or as {'use': 'NAME', ...}.", where=where, remedy=f"Given: {given!r}."
        ) from error


def _reader(node: Node) -> Use | None:
    """The plugin that made what a node gives, and reads it."""
    roles = {"policy": ("policy",), "reward": ("reward", "gold"), "answers": ("annotator",)}.get(node.gives, ())
    found = [use for role in roles for use in node.of_role(role)]
    return found[0] if found else None
