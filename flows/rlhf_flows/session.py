"""One pipeline at work in a workspace: open it, hold it, run its campaign, say what came of it."""

from __future__ import annotations

import atexit
import gc
import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.campaign.ledger import CampaignSummary, Ledger
from rlhf_flows.display import Display
from rlhf_flows.engine.job import Place
from rlhf_flows.engine.process import import_the_heavy
from rlhf_flows.graph.states import NodeState
from rlhf_flows.promotions import promotions
from rlhf_flows.server import PrivateServer
from rlhf_flows.work import Work
from rlhf_flows.workspace import Workspace

Half = Literal["collect", "retrain"]
_current: ContextVar[Work | None] = ContextVar("work", default=None)


@dataclass
class Session:
    """A pipeline in a workspace."""

    pipeline: Pipeline
    registry: Registry
    workspace: Workspace
    display: Display
    path: Path
    overrides: tuple[str, ...] = ()
    site: Path | None = None

    @classmethod
    def open(
        cls, path: Path, overrides: Sequence[str], workspace: Path, display: Display, site: Path | None = None
    ) -> Session:
        """Read and check the pipeline file; raises PipelineError with everything that doesn't fit."""
        from rlhf_core.pipeline.file import PipelineProblems, load_pipeline
        from rlhf_core.pipeline.site import site_of, with_site
        from rlhf_core.pipeline.wiring import check

        registry = Registry()
        loaded = load_pipeline(path, overrides, registry)
        problems = check(loaded, registry)
        if problems:
            raise PipelineProblems(problems)
        pipeline = with_site(loaded.pipeline, site_of(site))
        place = Workspace.open(workspace, pipeline.artifacts)
        return cls(pipeline, registry, place, display, path, tuple(overrides), site)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Where the results of stages lie."""
        return self.workspace.open_artifacts()

    @property
    def place(self) -> Place:
        """Where the campaign's things lie, for a worker anywhere."""
        return Place(workspace=str(self.workspace.folder), artifacts=self.workspace.artifacts_root)

    @property
    def ledger(self) -> Ledger:
        """What is remembered of the campaign."""
        return Ledger(self.artifacts, self.pipeline)

    def finished_rounds(self) -> int:
        """Number of rounds that earlier commands completed, the warm start not counted."""
        return max(0, self.ledger.index().rounds - 1)

    def learnt_upto(self) -> int:
        """The store's watermark when the last finished round took its snapshot; 0 before there is one."""
        return self.ledger.index().learnt_upto

    def preview(self, rounds: int | None = None) -> list[NodeState]:
        """What `run` would do, stage by stage; with `rounds`, as far as that round."""
        from rlhf_flows.campaign.preview import Preview
        from rlhf_flows.engine.results import Results
        from rlhf_flows.engine.scheduler import Memory
        from rlhf_flows.server import configure

        configure(self.workspace)
        memory = Memory(self.registry, Results(self.artifacts))
        chosen = promotions(self.workspace, self.pipeline.pipeline, self.ledger.campaign)
        looking = Preview(self.pipeline, self.registry, self.workspace, self.artifacts, memory, chosen)
        return looking.rounds(self.pipeline.rounds if rounds is None else rounds)

    def run(self, only: Half | None = None) -> CampaignSummary:
        """Run the campaign on a Prefect server, or go on with it where an earlier run stopped.

        With `only`, one half of one more round than were finished so far, whatever the pipeline's number of rounds.
        """
        with self.workspace.held(f"pipeline {self.pipeline.pipeline}"), PrivateServer(self.workspace) as server:
            self._get_ready()
            with server.answering(), self.at_work() as work:
                from rlhf_flows import flows
                from rlhf_flows.engine.task import error_of
                from rlhf_flows.orphaned_runs import end_leftovers

                if not server.fresh:
                    end_leftovers(self.workspace.folder)
                flow = {"collect": flows.collect, "retrain": flows.retrain, None: flows.loop}[only]
                state = flow(
                    pipeline=str(self.path),
                    workspace=str(self.workspace.folder),
                    overrides=list(self.overrides),
                    site=str(self.site) if self.site else None,
                    return_state=True,
                )
                if (error := error_of(state)) is not None:
                    raise error
                return work.summary()

    def _get_ready(self) -> None:
        """Do what takes seconds and needs no server while one starts in a process of its own."""
        from rlhf_flows.engine.job import tracker_of
        from rlhf_flows.graph.build import Compiler
        from rlhf_flows.graph.keys import ingredients

        tracker_of(self.place, self.pipeline.pipeline).prepare()
        import_the_heavy()
        importlib.import_module("rlhf_flows.flows")  # and with it Prefect
        atexit.register(gc.freeze)  # at the end nobody searches all this for garbage, which takes a second
        for node in Compiler(self.pipeline, self.registry).start():
            ingredients(node, {}, {}, self.registry)  # reads the code behind the first keys, once in this process

    @contextmanager
    def at_work(self) -> Iterator[Work]:
        """Everything that running takes, opened for as long as the body runs; flows within work on it."""
        from rlhf_core.feedback.lock import held
        from rlhf_flows.workspace import holder

        name = self.workspace.lock_name(self.pipeline.pipeline)
        with ExitStack() as stack:
            hold = stack.enter_context(held(self.workspace.store_url, name, holder()))
            work = stack.enter_context(Work(self))
            work.hold = hold
            token = _current.set(work)
            stack.callback(lambda: _current.reset(token))
            yield work


@contextmanager
def work_on(pipeline: str, workspace: str, overrides: Sequence[str], site: str | None) -> Iterator[Work]:
    """The work that is under way on this pipeline in this process; else the pipeline is opened, and the workspace held.

    Raises Busy where another process is at work on it.
    """
    current = _current.get()
    if current is not None and current.is_of(Path(pipeline), Path(workspace)):
        yield current
        return
    named = Path(site) if site else None
    session = Session.open(Path(pipeline), overrides, Path(workspace), Display(), named)
    import_the_heavy()
    with session.workspace.held(f"pipeline {session.pipeline.pipeline}"), session.at_work() as work:
        yield work
