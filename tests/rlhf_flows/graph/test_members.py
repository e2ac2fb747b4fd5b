"""Which parts of a reward model get stages of their own."""

import pytest

from rlhf_core.pipeline.spec import Tune
from rlhf_core.plugins import Use
from rlhf_core.plugins.registry import Registry
from rlhf_flows.graph.members import members_of

RULE = {"use": "rule", "rules": [{"name": "plan", "pattern": "plan"}]}
SEVERAL = Use(use="ensemble", members=[{"use": "pairwise"}, RULE], copies=2)


@pytest.mark.parametrize(
    ("reward", "space", "expected"),
    [
        (Use(use="pairwise"), None, ()),
        (Use(use="ensemble", members=[{"use": "pairwise"}, RULE]), None, ()),  # one that learns is no work to share
        (SEVERAL, None, (0, 1)),
        (SEVERAL, {"members.0.lr": {"low": 1e-4, "high": 1e-2}}, (0, 1)),
        (SEVERAL, {"copies": {"low": 1, "high": 3}}, ()),  # how many there are is known when the search is done
        (SEVERAL, {"members.0.epochs": {"among": [1, 2]}, "bootstrap": {"among": [True, False]}}, (0, 1)),
    ],
)
def test_parts_that_learn_have_stages_unless_a_search_decides_which_they_are(reward, space, expected):
    tune = Tune.model_validate({"space": space}) if space else None
    assert members_of(Registry(), reward, tune) == expected
