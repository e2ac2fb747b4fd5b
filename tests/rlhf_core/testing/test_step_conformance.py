"""Each point of the contract of steps must catch one that breaks it."""

import itertools
import shutil

import pytest

from rlhf_core import PluginConfig, Step, StepOutcome
from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.records.files import PROMPTS_FILE
from rlhf_core.testing import conformance
from rlhf_core.testing.conformance import check_plugin

counter = itertools.count()


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    monkeypatch.setattr(conformance, "GENERAL", [p for p in conformance.GENERAL if p.__name__ != "imports_lightly"])


def points(plugin, **options):
    return {finding.point for finding in check_plugin(plugin, **options)}


class Copies(Step):
    """Gives the data as they are."""

    takes = {"data"}
    gives = "data"

    def step(self, job):
        shutil.copytree(job.inputs["data"], job.out, dirs_exist_ok=True)
        return StepOutcome(summary="as they are")


class Recounts(Step):
    """Reads everything there is after the gate."""

    takes = {"data", "snapshot", "reward", "policy", "decision"}

    def step(self, job):
        assert Snapshot.read(job.inputs["snapshot"]).rows > 0
        assert job.info["promote"] is True
        assert (job.pipeline, job.round) == ("conformance", 1)
        return StepOutcome(dict(job.metrics))


class Hears(Step):
    """Hears that a run failed."""

    hears = {"failed"}

    def hear(self, event):
        self.run.note(event.text)


@pytest.mark.parametrize("plugin", [Copies, Recounts, Hears])
def test_what_keeps_the_contract(plugin):
    assert check_plugin(plugin) == []


def test_kinds_and_places():
    class Unknown(Copies):
        """Takes what there is not."""

        takes = {"date"}

    class Nowhere(Copies):
        """Would replace the data where the reward stands."""

        takes = {"reward"}

    assert "fits some place" in points(Unknown)
    assert "fits some place" in points(Nowhere)


def test_it_must_do_something():
    class Idle(Step):
        """Nothing."""

    class Deaf(Step):
        """Wants to hear and has no ears."""

        hears = {"failed"}

    class Mishears(Hears):
        """Wants to hear what never happens."""

        hears = {"faild"}

    class Promises(Hears):
        """Gives what it never makes."""

        takes, gives = {"data"}, "data"

    assert points(Idle) == points(Deaf) == points(Mishears) == points(Promises) == {"does something"}


def test_what_it_gives_can_be_read_and_is_the_same_twice():
    class Forgets(Copies):
        """Writes nothing."""

        def step(self, job):
            return StepOutcome()

    class Random(Copies):
        """Writes something else each time."""

        def step(self, job):
            outcome = super().step(job)
            (job.out / "extra.txt").write_text(str(next(counter)))
            return outcome

    class Spoils(Copies):
        """Changes what it reads."""

        def step(self, job):
            outcome = super().step(job)
            (job.inputs["data"] / PROMPTS_FILE).write_text("")
            return outcome

    class Silent(Copies):
        """Returns nothing."""

        def step(self, job):
            super().step(job)

    findings = {kind: [str(each) for each in check_plugin(kind)] for kind in (Forgets, Random, Spoils, Silent)}
    assert "no artifact of the kind data" in findings[Forgets][0]
    assert "two runs on the same inputs write different files" in findings[Random][0]
    assert any("it changes its inputs" in finding for finding in findings[Spoils])
    assert "returns None, not a StepOutcome" in findings[Silent][0]


@pytest.mark.parametrize("name", ["after", "before"])
def test_the_place_is_the_pipelines(name):
    class Config(PluginConfig):
        """One field."""

        __annotations__ = {name: str}

    Config.model_fields[name].description = "Taken."

    class Placed(Copies):
        """Has a field with the name of a place."""

    Placed.Config = Config
    assert "refuses unknown options" in points(Placed, **{name: "data"})
