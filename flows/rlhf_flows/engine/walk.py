"""One walk through a graph: what can start starts, what ended is noted, what lost its worker goes on elsewhere."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf_core.errors import RlhfError, Waiting
from rlhf_core.pipeline.placement import limits_of
from rlhf_flows.engine.job import Job, server_variables
from rlhf_flows.engine.results import Finished
from rlhf_flows.engine.runners import Handed, is_death, words
from rlhf_flows.engine.visible import show_lost
from rlhf_flows.engine.worker import shown_on
from rlhf_flows.graph import Graph, Node
from rlhf_flows.stages.context import StageResult

if TYPE_CHECKING:
    from rlhf_flows.engine.scheduler import Scheduler

DEATHS = 3
"""How often a stage may lose the worker that it runs on before that is an error."""


class NotTaken(RlhfError):
    """A stage that could not even be handed to its worker: no worker would take it."""

    def __init__(self, node: Node, error: BaseException) -> None:
        super().__init__(
            f"`{node.name}` could not be handed to its worker: {_first_line(error)}",
            where=f"stage {node.id}",
            remedy="Workers need the same packages as the run, in the same versions, on every machine.",
        )


class LostWorker(RlhfError):
    """The worker that a stage ran on is gone, again and again."""

    def __init__(self, node: Node, times: int, error: BaseException) -> None:
        super().__init__(
            f"the worker of `{node.name}` was lost {times} times: {_first_line(error)}",
            where=f"stage {node.id}",
            remedy="Systems kill what takes too much memory: give it more, or run less side by side (`run_on`).",
        )


@dataclass
class _Started:
    """A stage under way."""

    node: Node
    job: Job
    handed: Handed | None = None
    deaths: int = 0


class Walk:
    """One graph being worked through; see `Scheduler.run`."""

    def __init__(self, scheduler: Scheduler, graph: Graph) -> None:
        self.scheduler = scheduler
        self.memory = scheduler.memory
        self.display = scheduler.display
        self.waiting: list[Node] = [node for node in graph if node.id not in self.memory.finished]
        self.waits: dict[str, Waiting] = {}
        self.problem: BaseException | None = None
        self.elsewhere: dict[Future[Any], _Started] = {}

    def run(self) -> dict[str, Waiting]:
        """Until nothing is left that could start."""
        with _threads(len(self.waiting)) as threads:
            try:
                self._go_through(threads)
            except BaseException as error:
                self._stopped(error)
                raise
        if self.problem is not None:
            raise self.problem
        return self.waits

    def _go_through(self, threads: ThreadPoolExecutor) -> None:
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

    def _stopped(self, error: BaseException) -> None:
        """The run ends before its stages elsewhere: whoever works on them may have no time left to say so."""
        for started in self.elsewhere.values():
            with suppress(RlhfError):  # what stopped the run is said, and not that MLflow is away, too
                self.scheduler.record.stage(started.node, started.job.key).failed(error)

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
            variables=server_variables(),
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
            retry_delay_seconds=limits.waits() or 0,
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
        runs = {TaskRunResult(id=done.task_run) for done in before.values() if done.task_run}
        parameters = {
            "job": started.job.model_dump_json(),
            "inputs": {name: done.result.model_dump_json() for name, done in before.items()},
        }
        started.handed = self.scheduler.runners.submit(
            started.node, self._task(started.node), parameters, {"inputs": runs} if runs else {}
        )
        self.elsewhere[threads.submit(started.handed.state)] = started

    def _settle(self, threads: ThreadPoolExecutor, future: Future[Any]) -> None:
        started = self.elsewhere.pop(future)
        error = future.exception()
        if error is None and not future.result().is_crashed():
            self._ended(started, future.result())
            return
        if error is not None and not is_death(error):
            self._failed(started, NotTaken(started.node, error))
            return
        # The worker died, and not the stage: another one goes on from its checkpoint, or begins anew.
        what = error or RuntimeError(future.result().message)
        self._lost(started, what)
        if started.deaths >= DEATHS:
            self._failed(started, LostWorker(started.node, started.deaths, what))
            return
        if self.problem is not None:
            self.display.end(started.node.id, "lost its worker", mark="failed")
            return
        self._submit(threads, started)

    def _lost(self, started: _Started, error: BaseException) -> None:
        assert started.handed is not None
        started.deaths += 1
        show_lost(started.handed.future.task_run_id, _first_line(error))
        self.scheduler.runners.lost(started.handed)
        if started.deaths < DEATHS and self.problem is None:
            name = started.node.name
            self.display.note(f"the worker of {name} is gone ({_first_line(error)}): another one goes on")

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
        text = state.result(_sync=True)
        # Prefect tells by the place in memory which run a result came from, so that the text must not be given up.
        self.scheduler.kept.append(text)
        result = StageResult.model_validate_json(text)
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


def _first_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
