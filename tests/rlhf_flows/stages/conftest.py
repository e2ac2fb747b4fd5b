"""A stage's body at work, on artifacts that a test writes."""

import uuid

import pytest

from rlhf_core.run import Run
from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.graph import Input, Node, Role
from rlhf_flows.stages.context import StageContext, StageResult


class Noted(Run):
    def __init__(self):
        super().__init__(seed=3)
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Bench:
    """Makes artifacts and contexts in one store."""

    def __init__(self, folder):
        self.folder = folder
        self.artifacts = ArtifactStore(str(folder / "artifacts"), folder / "scratch")

    def artifact(self, kind, fill=lambda folder: None, metrics=None, **info):
        """A published artifact as the result of a stage; `fill` writes its files."""
        with self.artifacts.draft(kind) as draft:
            (draft / "kind.txt").write_text(f"{kind} {uuid.uuid4()}")
            fill(draft)
            return StageResult(ref=self.artifacts.publish(kind, draft), metrics=metrics or {}, info=info)

    def context(self, registry, results, roles, gives="thing", settings=None, round_=2):
        """What a body works with. `roles` are (role, kind, use)."""
        node = Node(
            id=f"{round_}/work",
            name="work",
            stage="work",
            body="a.b:c",
            title="work",
            gives=gives,
            pipeline="demo",
            round=round_,
            plugins=tuple(Role(role=role, kind=kind, use=use) for role, kind, use in roles),
            settings=settings or {},
            inputs={name: Input(node=f"1/{name}", kind=result.ref.kind) for name, result in results.items()},
        )
        draft = self.folder / f"draft-{uuid.uuid4().hex}"
        draft.mkdir()
        return StageContext(node, results, registry, self.artifacts, Noted(), draft, f"sqlite:///{self.folder}/f.db")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)
