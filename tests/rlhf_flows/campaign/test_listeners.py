"""Telling steps what happens, each thing once."""

import pytest

from rlhf_core import PluginConfig, Step
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.campaign.events import Listeners
from stub_plugins import stub_registry

HEARD = []


class Listen(Step):
    """Writes down what it hears."""

    hears = {"promoted", "failed"}

    class Config(PluginConfig):
        name: str = "a"
        """Who listens."""
        broken: bool = False
        """Whether it fails."""

    def hear(self, event):
        if self.config.broken:
            raise RuntimeError("no network")
        self.run.note(f"{self.config.name} heard {event.name}")
        HEARD.append((self.config.name, event))


REGISTRY = Registry(
    plugins=[*stub_registry().plugins, PluginInfo("steps", "listener", "own", "1.0", f"{__name__}:Listen")]
)


@pytest.fixture
def listeners(command):
    """Makes what a new command has, on one artifact store: `listeners(*steps)`."""
    HEARD.clear()

    def make(*steps, campaign="c"):
        made = command({"steps": [{"use": "listener", "after": "gate", **step} for step in steps]}, registry=REGISTRY)
        notes = []
        found = Listeners(made.pipeline, REGISTRY, made.artifacts, campaign, notes.append)
        found.notes = notes
        return found

    return make


def tell(to, name="promoted", round_=1, what="policy"):
    to.tell(name, round_, f"round {round_} was {name}", what, {"reasons": ["better"]})


def test_each_listener_is_told_once_by_whatever_command(listeners):
    for _ in range(2):
        to = listeners({"name": "a"}, {"name": "b"})
        tell(to)
        tell(to)
    assert [name for name, _ in HEARD] == ["a", "b"]
    event = HEARD[0][1]
    assert (event.name, event.pipeline, event.round, event.text) == ("promoted", "demo", 1, "round 1 was promoted")
    assert event.data == {"reasons": ["better"]}
    assert event.key == "c-1-promoted-policy"


def test_what_is_something_else_is_told_too(listeners):
    to = listeners({})
    tell(to)
    tell(to, round_=2)
    tell(to, what="another policy")
    tell(to, "failed")
    tell(listeners({}, campaign="d"))
    assert len({event.key for _, event in HEARD}) == len(HEARD) == 5


def test_only_what_it_wants_to_hear(listeners):
    tell(listeners({}), "kept")
    assert HEARD == []


def test_an_error_of_one_is_noted_and_stops_no_other(listeners):
    to = listeners({"broken": True}, {"name": "b"})
    tell(to)
    assert [name for name, _ in HEARD] == ["b"]
    assert to.notes == ["a step could not be told that round 1 was promoted: RuntimeError: no network",
                        "b heard promoted"]  # fmt: skip


def test_a_kill_while_it_is_told_has_it_told_again(listeners, monkeypatch):
    to = listeners({})
    monkeypatch.setattr(to.artifacts, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tell(to)
    tell(listeners({}))
    first, second = HEARD
    assert first[1].key == second[1].key  # by which a receiver tells that it is the same
    tell(listeners({}))
    assert len(HEARD) == 2


def test_steps_that_only_work_are_not_asked(command):
    made = command({"steps": [{"use": "clean", "after": "data"}]})
    assert Listeners(made.pipeline, made.memory.registry, made.artifacts, "c", print).steps == []
