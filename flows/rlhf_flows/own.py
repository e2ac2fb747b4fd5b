"""Flows of one's own, from the built-in stages and from functions: the documented Python interface.

```python
with own_flow("averaged", seed=3) as flow:
    round_ = flow.round(1)
    data = round_.add("data", plugins={"data": {"use": "newsroom", "prompts": 200}})
    ...
    results = flow.run(round_)
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from rlhf_core.errors import PipelineError, Waiting
from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.pipeline.config_errors import explain
from rlhf_core.pipeline.parts import dotted
from rlhf_core.pipeline.placement import Placement
from rlhf_core.plugins.registry import Registry
from rlhf_core.records import content_id
from rlhf_flows.artifact_store import DamagedArtifact
from rlhf_flows.display import Display
from rlhf_flows.graph import Graph
from rlhf_flows.graph.builder import GraphBuilder
from rlhf_flows.graph.chosen import plugins_in
from rlhf_flows.graph.states import NodeState
from rlhf_flows.stages.context import StageResult
from rlhf_flows.workspace import Workspace, holder

REPAIRS = 10
"""Damaged artifacts that one run computes again before it gives up."""

_under_way: ContextVar[tuple[OwnFlow, Graph]] = ContextVar("under_way")


@contextmanager
def own_flow(
    name: str,
    *,
    seed: int = 0,
    workspace: str | Path | Workspace = ".rlhf",
    placement: Placement | Mapping[str, Any] | None = None,
    site: str | Path | None = None,
    display: Display | None = None,
    purpose: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[OwnFlow]:
    """Everything that a flow of one's own takes: the workspace, held; Prefect and MLflow, as `rlhf run` has them.

    `name` is the MLflow experiment and the Prefect flow. `placement` says where stages run and how often they are
    tried, as a pipeline does: `{"run_on": {"workers": 2}, "stages": {...}, "artifacts": "s3://..."}`; `site` (or
    RLHF_SITE) names a file that says the rest. `parameters` stand in MLflow and tell one run from another; by default
    these are the plugins and settings of the first graph that runs. `purpose` is a word for work that is none of the
    flow's own rounds. Raises Busy where another run holds the workspace.
    """
    from rlhf_core.feedback.lock import held
    from rlhf_flows.engine.process import import_the_heavy
    from rlhf_flows.engine.runners import Runners
    from rlhf_flows.orphaned_runs import end_leftovers
    from rlhf_flows.server import PrivateServer

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise PipelineError(f"`{name}` cannot be a flow's name: use letters, digits, `.`, `_` and `-`.")
    places = _placement(placement, site)
    folder = workspace if isinstance(workspace, Workspace) else Workspace.open(Path(workspace), places.artifacts)
    title = f"{purpose} {name}".strip()
    with folder.held(f"flow {title}"), PrivateServer(folder) as server:
        import_the_heavy()
        artifacts_at = f"{name} {folder.artifacts_root or folder.artifacts}"
        with server.answering(), held(folder.store_url, artifacts_at, holder()), Runners(places) as runners:
            end_leftovers(folder.folder, (title,))
            flow = OwnFlow(name, seed, folder, places, runners, display or Display(), purpose, parameters)
            try:
                yield flow
            except BaseException as error:
                flow.end(error)
                raise
            flow.end()


class OwnFlow:
    """A flow at work; `own_flow` opens it."""

    def __init__(
        self,
        name: str,
        seed: int,
        workspace: Workspace,
        placement: Placement,
        runners: Any,
        display: Display,
        purpose: str,
        parameters: Mapping[str, Any] | None,
    ) -> None:
        from rlhf_flows.engine.job import Place, tracker_of
        from rlhf_flows.engine.results import Results
        from rlhf_flows.engine.scheduler import Memory

        self.name = name
        self.seed = seed
        self.workspace = workspace
        self.registry = Registry()
        self.artifacts = workspace.open_artifacts()
        self.artifacts.clear_drafts()
        self.memory = Memory(self.registry, Results(self.artifacts))
        self._placement = placement
        self._runners = runners
        self._display = display
        self._purpose = purpose
        self._parameters = parameters
        self._place = Place(workspace=str(workspace.folder), artifacts=workspace.artifacts_root)
        self._tracker = tracker_of(self._place, name).prepare()
        self._graphs: list[Graph] = []
        self._scheduler: Any = None
        self._runs: Any = None

    def round(self, number: int = 1) -> GraphBuilder:
        """An empty graph, to be filled with stages. What they draw by chance follows from the round's number, too."""
        return GraphBuilder(self.name, number, self.seed, self.registry)

    def run(self, round_: GraphBuilder | Graph) -> dict[str, StageResult]:
        """Do what is not done yet, side by side where `placement` gives workers; the results by name of the stage.

        The stages are task runs of the Prefect flow that this is called in; outside of one, of a flow of this one's
        name. Raises Waiting where people have to answer first: the same script goes on when they have.
        """
        from prefect.context import FlowRunContext

        graph = round_ if isinstance(round_, Graph) else round_.graph()
        self._begin(graph)
        if FlowRunContext.get() is not None:
            waits = self._work(graph)
            if waits:
                raise next(iter(waits.values()))
        else:
            self._in_a_flow(graph)
        return self._done(graph)

    def folder(self, result: StageResult) -> Path:
        """Local folder of what a stage wrote; not to be changed."""
        return self.artifacts.path(result.ref)

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures of the flow as a whole in MLflow."""
        self._recorded().run.log_metrics(metrics, step)

    def end(self, error: BaseException | None = None) -> None:
        """Say in MLflow how it ended; `own_flow` does."""
        if self._runs is None:
            return
        if error is None:
            self._runs.finish()
        else:
            self._runs.stopped(error)

    def _begin(self, graph: Graph) -> None:
        from rlhf_flows.campaign.runs import FlowRuns
        from rlhf_flows.engine.scheduler import Scheduler

        self._graphs = [each for each in self._graphs if each.round != graph.round] + [graph]
        if self._runs is None:
            shown = self._parameters if self._parameters is not None else parameters_of(graph)
            self._runs = FlowRuns(
                self._tracker,
                self.artifacts,
                self.workspace,
                key="-".join(filter(None, [self._purpose, "own", content_id([self.name, self.seed, dict(shown)])])),
                title=f"{self._purpose} {self.name} seed {self.seed}".strip(),
                parameters={"seed": self.seed, **shown},
                plugins=plugins_in([graph], self.registry),
            )
            self._scheduler = Scheduler(
                self._placement, self.memory, self.artifacts, self._place, self._display, self._runs, self._runners
            )
        self._display.heading(f"{f'{self._purpose} {self.name}'.strip()} · round {graph.round}", f"seed {self.seed}")

    def _recorded(self) -> Any:
        if self._runs is None:
            raise PipelineError("nothing ran yet, so there is no MLflow run to log to.", remedy="Call run() first.")
        return self._runs

    def _in_a_flow(self, graph: Graph) -> None:
        from prefect import flow

        from rlhf_flows.engine.task import error_of

        title = f"{self._purpose} {self.name}".strip()
        as_flow = flow(name=title, flow_run_name=f"{title} round {graph.round}", persist_result=False)(_stages)
        token = _under_way.set((self, graph))
        try:
            state: Any = as_flow(str(self.workspace.folder), graph.round, self.seed, return_state=True)
        finally:
            _under_way.reset(token)
        if (error := error_of(state)) is not None:
            raise error

    def _work(self, graph: Graph) -> dict[str, Waiting]:
        """Run a graph. An artifact that is damaged is computed again, whichever round it is of."""
        for _ in range(REPAIRS):
            try:
                for earlier in self._graphs[:-1]:
                    self._scheduler.run(earlier)
                return cast("dict[str, Waiting]", self._scheduler.run(graph))
            except DamagedArtifact as damage:
                self._display.note(f"{damage.what} Its stage is computed again.")
                self.artifacts.discard(damage.ref)
                self.memory.finished.clear()
                last = damage
        raise last

    def _done(self, graph: Graph) -> dict[str, StageResult]:
        from rlhf_flows.graph.render import to_json

        done = {node.name: self.memory.finished[node.id] for node in graph}
        states = [
            NodeState(node, "cached", done[node.name].key, result=done[node.name].result.summary) for node in graph
        ]
        measured: dict[str, Metric] = {}
        for each in done.values():
            if each.result.ref.kind == "evaluation":
                measured |= each.result.metrics
        self._recorded().round_done(graph.round, measured, json.dumps(to_json(states), indent=1))
        return {name: each.result for name, each in done.items()}


def _stages(workspace: str, round: int, seed: int) -> Any:
    """The Prefect flow around a graph, for people who have none of their own.

    Prefect hands a flow's function to the processes that take its stages, so it holds nothing: see `_under_way`.
    """
    from prefect.states import Cancelled

    from rlhf_flows.engine.task import WAITING

    flow, graph = _under_way.get()
    waits = flow._work(graph)
    if waits:
        first = next(iter(waits.values()))
        return Cancelled(name=WAITING, message=str(first), data=first)
    return None


def parameters_of(graph: Graph) -> dict[str, Any]:
    """What a graph is made with: for each stage its settings, and its plugins by role, those that it was given alone.

    A policy's plugin stands with the stage that made the policy, and not with those that load it.
    """
    makers = {node.id: node for node in graph}
    found: dict[str, Any] = {}
    for node in graph:
        brought = [
            role for given in node.inputs.values() if given.node in makers for role in makers[given.node].plugins
        ]
        roles: dict[str, list[Any]] = {}
        for role in node.plugins:
            if role not in brought:
                roles.setdefault(role.role, []).append(role.use.model_dump(mode="json"))
        plugins = {name: uses[0] if len(uses) == 1 else uses for name, uses in roles.items()}
        settings = {name: value for name, value in node.settings.items() if name not in ("asked", "seed")}
        found |= {node.name: {**settings, **plugins}} if settings or plugins else {}
    return found


def _placement(given: Placement | Mapping[str, Any] | None, site: str | Path | None) -> Placement:
    from rlhf_core.pipeline.site import site_of, with_site

    try:
        own = given if isinstance(given, Placement) else Placement.model_validate(dict(given or {}))
    except ValidationError as error:
        first = explain(error, Placement, given)[0]
        raise PipelineError(f"`placement`: `{dotted(first.loc)}` {first.what}.") from error
    # Pipelines and placements have these fields in common, and no other is touched.
    return with_site(cast("Pipeline", own), site_of(Path(site) if site is not None else None))
