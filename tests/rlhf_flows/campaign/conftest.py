"""A campaign whose stages leave next to nothing, with a real artifact store and a real feedback store."""

import json

import pytest
import yaml

from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.metrics import Metric
from rlhf_core.pipeline import Pipeline
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.records.files import write_records
from rlhf_core.run import Run
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.campaign.ledger import Ledger
from rlhf_flows.campaign.past import Past
from rlhf_flows.campaign.rounds import Campaign
from rlhf_flows.engine.results import Finished, Results
from rlhf_flows.engine.scheduler import Memory
from rlhf_flows.stages.collect import take_snapshot
from rlhf_flows.stages.context import Outcome, StageContext, StageResult
from stub_plugins import PIPELINE, stub_registry


class Command:
    """What one `rlhf run` does, with an engine that only takes notes."""

    def __init__(self, folder, changes=None, chosen=(), registry=None, promotes=lambda number: True):
        sections = yaml.safe_load(PIPELINE) | (changes or {})
        self.pipeline = Pipeline.model_validate({k: v for k, v in sections.items() if v is not None})
        self.artifacts = ArtifactStore(str(folder / "artifacts"), folder / "scratch")
        self.store_url = f"sqlite:///{folder}/feedback.db"
        self.memory = Memory(registry or stub_registry(), Results(self.artifacts))
        self.ledger = Ledger(self.artifacts, self.pipeline)
        self.notes = []
        self.past = Past(self.ledger, self.artifacts, self.store_url, self.notes.append)
        self.campaign = Campaign(self.pipeline, self.memory.registry, self.memory, self.run, chosen)
        self.promotes = promotes
        self.went_through = []
        """Nodes that the engine was asked for."""
        self.computed = []
        """Those among them whose results were not known."""

    def begin(self):
        self.past.compare()
        self.past.take_over(self.campaign)
        if not self.campaign.rounds:
            self.past.remember(self.campaign.start())

    def go_on(self, rounds):
        """As `rlhf run --rounds`; returns the command."""
        self.begin()
        while self.campaign.coming <= rounds:
            self.campaign.collect()
            self.past.remember(self.campaign.retrain())
            self.past.take_over(self.campaign)
        return self

    def run(self, graph):
        for node in graph:
            if node.id in self.memory.finished:
                continue
            self.went_through.append(node.id)
            prepared = self.memory.prepare(node)
            result = prepared.known
            if result is None:
                self.computed.append(node.id)
                result = self._made(node, prepared)
            if node.cached:
                self.memory.results.put(prepared.key, result)
            self.memory.finished[node.id] = Finished(key=prepared.key, result=result)
        return {}

    def _made(self, node, prepared):
        with self.artifacts.draft(node.name) as draft:
            context = StageContext(
                node, self.memory.inputs(node), self.memory.registry, self.artifacts, Run(), draft, self.store_url
            )
            outcome = getattr(self, f"_{node.stage}", self._anything)(context, prepared.key)
            ref = self.artifacts.publish(node.gives, draft, outcome.digest)
        return StageResult(ref=ref, metrics=outcome.metrics, info=outcome.info)

    def _anything(self, context, key):
        (context.draft / "made.txt").write_text(key)
        return Outcome(info={"summary": context.node.name})

    def _data(self, context, key):
        (context.draft / "questions.txt").write_text("")
        return self._anything(context, key)

    def _questions(self, context, key):
        write_records(context.draft / "questions.jsonl", questions(context.node.round))
        return Outcome()

    def _answers(self, context, key):
        given = [
            Answer(question=question, feedback=question.compare([1, 0], annotator=annotator))
            for question in questions(context.node.round)
            for annotator in ("ann", "bob")
        ]
        with FeedbackStore.open(self.store_url) as store:
            store.add(given)
        return self._anything(context, key)

    def _snapshot(self, context, key):
        return take_snapshot(context)

    def _evaluate(self, context, key):
        return Outcome({"win_rate": Metric(value=0.6)}, self._anything(context, key).info)

    def _gate(self, context, key):
        self._anything(context, key)
        return Outcome(info={"promote": self.promotes(context.node.round), "reasons": ["so it is"]})


def questions(round_):
    found = []
    for number in range(3):
        prompt = Prompt(text=f"prompt {number} of round {round_}")
        samples = tuple(Sample(prompt_id=prompt.id, text=f"answer {letter} of {number}") for letter in "ab")
        found.append(Question(prompt=prompt, samples=samples))
    return found


@pytest.fixture
def command(tmp_path):
    """Makes a new command on one folder: `command(changes)`."""

    def make(changes=None, **options):
        return Command(tmp_path, changes, **options)

    return make


@pytest.fixture
def documents(tmp_path):
    """Reads and writes the documents beside the artifacts, by a pattern of their names."""

    class Documents:
        def path(self, pattern):
            (found,) = (tmp_path / "artifacts").glob(pattern)
            return found

        def edit(self, pattern, **changes):
            path = self.path(pattern)
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return Documents()
