import importlib
import pickle
import pkgutil

import pytest

import rlhf_core
from rlhf_core import errors
from rlhf_core.errors import RlhfError, Waiting
from rlhf_core.pipeline.file import PipelineProblems, Problem


def every_subclass(kind=RlhfError):
    yield kind
    for below in kind.__subclasses__():
        yield from every_subclass(below)


for module in pkgutil.walk_packages(rlhf_core.__path__, "rlhf_core."):
    if "testing" not in module.name and "migrations" not in module.name:
        importlib.import_module(module.name)
SPECIAL = {
    Waiting: lambda: Waiting(3, "people", "Somebody answers"),
    PipelineProblems: lambda: PipelineProblems([Problem("p.yaml:1", "one"), Problem("p.yaml:2", "two", "do")]),
}
KINDS = sorted({kind for kind in every_subclass() if kind.__module__.startswith("rlhf_core")}, key=lambda k: k.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_come_back_from_other_processes_as_they_were(kind):
    error = SPECIAL.get(kind, lambda: kind("it broke", where="p.yaml:3", remedy="Mend it."))()
    error.add_note("seen in stage reward")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert (again.args, again.exit_code) == (error.args, error.exit_code)


def test_all_kinds_are_tried():
    own = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RlhfError)}
    assert own <= set(KINDS)
    assert Waiting(1, "people").exit_code == 3
