"""An engine with everything real but the stages: a Prefect server, MLflow, an artifact store, and task runners."""

import os
import time

import pytest

from rlhf_core.pipeline.placement import Placement
from rlhf_core.plugins.registry import Registry
from rlhf_flows.engine.job import Place, Tracked, tracker_of
from rlhf_flows.engine.results import Results
from rlhf_flows.engine.runners import Runners
from rlhf_flows.engine.scheduler import Memory, Scheduler
from rlhf_flows.engine.stage_record import stage_record
from rlhf_flows.server import PrivateServer
from rlhf_flows.workspace import Workspace


class Said:
    """A display that remembers."""

    def __init__(self):
        self.begun, self.notes, self.ends = [], [], {}

    def begin(self, stage, title):
        self.begun.append((stage, title))

    def progress(self, stage, done, total, note):
        pass

    def note(self, text):
        self.notes.append(text)

    def end(self, stage, summary, mark="done"):
        self.ends[stage] = (mark, summary)


class Recorder:
    """What the engine asks of a campaign's record, below one MLflow run."""

    def __init__(self, workspace, tracker, run):
        self.workspace, self.tracker, self.run = workspace, tracker, run
        self.written = []

    def tracked(self, round_):
        return Tracked(parent=self.run.run_id, root=self.run.run_id, key=self.run.key)

    def stage(self, node, key):
        return stage_record(self.tracker, self.tracked(node.round), node, key, self.workspace)

    def why_again(self, node, prepared):
        return ""

    def computed(self, node, job):
        self.written.append(node.id)


class Engine:
    """Runs graphs in a workspace, each `run` as a new command would."""

    def __init__(self, workspace, artifacts, tracker, run):
        self.workspace = workspace
        self.artifacts_root = artifacts
        self.tracker, self.tracked_run = tracker, run
        self.record = Recorder(workspace, tracker, run)

    def run(self, graph, **placement):
        """What is waited for; `finished`, `said` and `flow_run` say the rest, also where it raises."""
        from prefect.runtime import flow_run

        from played_stages import TO_DO, played

        chosen = Placement.model_validate(placement)
        place = Place(workspace=str(self.workspace.folder), artifacts=self.artifacts_root)
        artifacts = place.here().open_artifacts()
        self.said, self.memory = Said(), Memory(Registry(), Results(artifacts))
        self.finished, self.artifacts, self.flow_run = self.memory.finished, artifacts, None

        def to_do():
            self.flow_run = flow_run.id
            with Runners(chosen) as self.runners:
                scheduler = Scheduler(chosen, self.memory, artifacts, place, self.said, self.record, self.runners)
                return scheduler.run(graph)

        TO_DO.append(to_do)
        return played()

    def text(self, name):
        return (self.artifacts.path(self.finished[f"1/{name}"].result.ref) / "text").read_text()

    def task_runs(self):
        """Those of the last run, by name; the latest of each."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with get_client(sync_client=True) as client:
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run]))
            deadline = time.monotonic() + 60
            while True:  # what workers say of their runs arrives a moment later
                runs = {each.name.partition(",")[0]: each for each in client.read_task_runs(flow_run_filter=chosen)}
                begun = {stage.partition("/")[2] for stage, _ in self.said.begun}
                states = [runs[name].state if name in runs else None for name in begun]
                if all(state is not None and state.is_final() for state in states):
                    return runs
                assert time.monotonic() < deadline, f"{begun} are not all among {runs}"
                time.sleep(0.1)

    def state_in_mlflow(self, name):
        """Status of a stage's MLflow run."""
        client = self.tracker.client
        (experiment,) = client.search_experiments(filter_string="name = 'played'")
        below = f"tags.`rlhf.stage` = '{name}' and tags.`rlhf.root` = '{self.tracked_run.run_id}'"
        (found,) = client.search_runs([experiment.experiment_id], below)
        return found.info.status


@pytest.fixture(scope="package")
def prefect_api(tmp_path_factory):
    """A Prefect server for the tests of this folder, and for this process while they run."""
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    with PrivateServer(Workspace.open(tmp_path_factory.mktemp("prefect"))) as server, server.answering():
        from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

        quiet = {PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}
        with temporary_settings(updates={PREFECT_API_URL: server.api, **quiet}):
            yield server.api
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="package")
def tracked_workspace(tmp_path_factory):
    """A workspace whose MLflow database is made."""
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    place = Place(workspace=str(workspace.folder), artifacts="")
    tracker = tracker_of(place, "played").prepare()
    return workspace, tracker


@pytest.fixture
def engine(prefect_api, tracked_workspace, tmp_path, request):
    """An engine with an artifact root of the test's own."""
    workspace, tracker = tracked_workspace
    key = request.node.name
    return Engine(workspace, str(tmp_path / "artifacts"), tracker, tracker.campaign(key, key, {}, {}))
