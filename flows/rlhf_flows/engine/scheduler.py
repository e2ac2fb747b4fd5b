"""Working through a graph: every stage as soon as what it needs is there, as many at once as its places allow."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rlhf_core.errors import Waiting
from rlhf_core.pipeline.placement import Placement, limits_of
from rlhf_core.plugins.registry import Registry
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.display import Display
from rlhf_flows.engine.job import Job, Place, Tracked
from rlhf_flows.engine.results import Finished, Results
from rlhf_flows.engine.runners import Runners, words
from rlhf_flows.engine.worker import shown_on
from rlhf_flows.graph import Graph, Node
from rlhf_flows.graph.keys import Ingredients, ingredients, key_of
from rlhf_flows.stages.context import StageResult

if TYPE_CHECKING:
    from rlhf_flows.engine.stage_record import StageRecord

DEATHS = 3
"""How often a stage may lose the worker that it runs on before that is an error."""


class Prepared(NamedTuple):
    """A node whose inputs are there."""

    key: str
    ingredients: Ingredients
    known: StageResult | None
    """Its result, where it is stored already."""


@dataclass
class Memory:
    """The results of a campaign so far, by node, and where more are looked up."""

    registry: Registry
    results: Results
    finished: dict[str, Finished] = field(default_factory=dict)

    def prepare(self, node: Node) -> Prepared:
        """The key of a node whose predecessors are finished, and what is stored under it."""
        found = self._ingredients(node)
        key = key_of(node, found)
        return Prepared(key, found, self.results.get(key) if node.cached else None)

    def key(self, node: Node) -> str:
        """The key of a node whose predecessors are finished."""
        return key_of(node, self._ingredients(node))

    def _ingredients(self, node: Node) -> Ingredients:
        given = self.inputs(node)
        digests = {name: result.ref.sha256 for name, result in given.items()}
        return ingredients(node, digests, {name: result.metrics for name, result in given.items()}, self.registry)

    def inputs(self, node: Node) -> dict[str, StageResult]:
        """The results behind a node's inputs. Raises KeyError where one is missing."""
        return {name: self.finished[given.node].result for name, given in node.inputs.items()}

    def ready(self, node: Node) -> bool:
        """Whether everything that the node needs is there."""
        return all(name in self.finished for name in node.predecessors)


class Recorder(Protocol):
    """Whoever writes down what the stages of a campaign did."""

    def tracked(self, round_: int) -> Tracked:
        """Where a stage of a round logs."""
        ...

    def stage(self, node: Node, key: str) -> StageRecord:
        """The record of a stage."""
        ...

    def why_again(self, node: Node, prepared: Prepared) -> str:
        """What changed since the stage was computed last; empty where it never was."""
        ...

    def computed(self, node: Node, job: Job) -> None:
        """Take note of what a stage was computed from."""
        ...


class Scheduler:
    """Runs graphs inside a Prefect flow. Not for several threads at once."""

    def __init__(
        self,
        placement: Placement,
        memory: Memory,
        artifacts: ArtifactStore,
        place: Place,
        display: Display,
        record: Recorder,
        runners: Runners,
    ) -> None:
        self.placement = placement
        self.memory = memory
        self.artifacts = artifacts
        self.place = place
        self.display = display
        self.record = record
        self.runners = runners

    def run(self, graph: Graph) -> dict[str, Waiting]:
        """Run every node that is not finished yet. Those that wait for people are returned; what does not depend on
        them is done all the same.

        Raises what a stage raised, once the stages that run beside it have ended: their results are kept.
        """
        return _Pass(self, graph).run()


@dataclass
class _Started:
    """A stage under way."""

    node: Node
    job: Job
    deaths: int = 0


class _Pass:
    """One graph being worked through."""

    def __init__(self, scheduler: Scheduler, graph: Graph) -> None:
        self.scheduler = scheduler
        self.memory = scheduler.memory
        self.display = scheduler.display
        self.waiting: list[Node] = [node for node in graph if node.id not in self.memory.finished]
        self.waits: dict[str, Waiting] = {}
        self.problem: BaseException | None = None
        self.elsewhere: dict[Future[Any], _Started] = {}

    def run(self) -> dict[str, Waiting]:
        with _threads(len(self.waiting)) as threads:
            while True:
                here = self._start(threads)
                if here is not None:
                    self._do_here(here)
                elif self.elsewhere:
                    done, _ = wait(self.elsewhere, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._settle(threads, future)
                else:
                    break
        if self.problem is not None:
            raise self.problem
        return self.waits

    def _start(self, threads: ThreadPoolExecutor) -> _Started | None:
        """Start everything that can start elsewhere; the first stage that is to be done here."""
        if self.problem is not None:
            return None
        for node in [node for node in self.waiting if self.memory.ready(node)]:
            job = self._job(node)
            place = self.scheduler.runners.place(node)
            self.waiting.remove(node)
            where = "" if job.known is not None else words(place)
            self.display.begin(node.id, f"{node.title}" + (f" ({where})" if where else ""))
            if job.known is not None or place == "here":
                return _Started(node, job)
            self._submit(threads, _Started(node, job))
        return None

    def _job(self, node: Node) -> Job:
        prepared = self.memory.prepare(node)
        if prepared.known is None and node.cached and (why := self.scheduler.record.why_again(node, prepared)):
            self.display.note(f"{node.name} is computed again: {why}")
        return Job(
            node=node,
            key=prepared.key,
            ingredients=prepared.ingredients,
            place=self.scheduler.place,
            tracked=self.scheduler.record.tracked(node.round),
            known=prepared.known,
        )

    def _task(self, node: Node) -> Any:
        from rlhf_flows.engine.task import stage

        limits = limits_of(self.scheduler.placement, node.stage)  # type: ignore[arg-type]
        return stage.with_options(
            # The round stands in the name and not in a tag: Prefect asks its server about the concurrency limit of each
            # tag, which takes two seconds after every long stage.
            task_run_name=f"{node.name}, round {node.round}",
            retries=limits.retries,
            retry_delay_seconds=limits.waits() or None,
            timeout_seconds=limits.timeout,
        )

    def _do_here(self, started: _Started) -> None:
        from rlhf_flows.engine.task import as_predecessor

        inputs = {
            name: as_predecessor(done.result, done.task_run) for name, done in self._predecessors(started.node).items()
        }
        try:
            with shown_on(self.display):
                state = self._task(started.node)(started.job.model_dump_json(), inputs, return_state=True)
        except BaseException as error:
            self.display.end(started.node.id, type(error).__name__, mark="failed")
            raise
        self._ended(started, state)

    def _submit(self, threads: ThreadPoolExecutor, started: _Started) -> None:
        from prefect.client.schemas.objects import TaskRunResult

        before = self._predecessors(started.node)
        runs = {TaskRunResult(id=done.task_run) for done in before.values() if done.task_run}  # type: ignore[arg-type]
        parameters = {
            "job": started.job.model_dump_json(),
            "inputs": {name: done.result.model_dump_json() for name, done in before.items()},
        }
        future = self.scheduler.runners.submit(
            started.node, self._task(started.node), parameters, {"inputs": runs} if runs else {}
        )
        self.elsewhere[threads.submit(_state_of, future)] = started

    def _settle(self, threads: ThreadPoolExecutor, future: Future[Any]) -> None:
        started = self.elsewhere.pop(future)
        error = future.exception()
        if error is None and not future.result().is_crashed():
            self._ended(started, future.result())
            return
        # The worker died, and not the stage: another one goes on from its checkpoint, or begins anew.
        started.deaths += 1
        what = error or RuntimeError(future.result().message)
        if started.deaths >= DEATHS or self.problem is not None:
            self._failed(started, what)
            return
        self.display.note(f"the worker of {started.node.name} is gone ({_first_line(what)}): another one goes on")
        self.scheduler.runners.replace(started.node)
        try:
            self._submit(threads, started)
        except Exception as error:
            self._failed(started, error)

    def _ended(self, started: _Started, state: Any) -> None:
        from rlhf_flows.engine.task import error_of

        node, job = started.node, started.job
        error = error_of(state)
        if isinstance(error, Waiting):
            self.waits[node.id] = error
            self.display.end(node.id, error.what, mark="waits")
            return
        if error is not None:
            self._failed(started, error)
            return
        result = StageResult.model_validate_json(state.result(_sync=True))
        self.memory.finished[node.id] = Finished(
            key=job.key, result=result, task_run=str(state.state_details.task_run_id or "")
        )
        if job.known is not None:
            self.scheduler.record.stage(node, job.key).finish_cached(result)
        else:
            self.scheduler.record.computed(node, job)
            if self.scheduler.runners.place(node) != "here":
                for note in result.notes:
                    self.display.note(note)
        self.display.end(node.id, result.summary, mark="done" if job.known is None else "cached")

    def _failed(self, started: _Started, error: BaseException) -> None:
        self.display.end(started.node.id, type(error).__name__, mark="failed")
        if self.problem is None:
            self.problem = error
        else:
            self.display.note(f"{started.node.name} failed, too: {_first_line(error)}")

    def _predecessors(self, node: Node) -> Mapping[str, Finished]:
        return {name: self.memory.finished[given.node] for name, given in node.inputs.items()}


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each wait for a stage that runs elsewhere; when the run is stopped nobody waits for them."""
    threads = ThreadPoolExecutor(max_workers=max(1, count))
    try:
        yield threads
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        raise
    threads.shutdown()


def _state_of(future: Any) -> Any:
    """The final state of a task run that a runner took, in whatever form the runner hands it over."""
    future.wait()
    return future.state


def _first_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
