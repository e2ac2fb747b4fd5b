"""What a gate sees, and what its decision carries on."""

import json

from rlhf_core import Gate, Use
from rlhf_core.metrics import Metric
from rlhf_core.plugins import Decision
from rlhf_core.plugins.registry import PluginInfo, Registry
from rlhf_flows.stages.judge import decide, given, merged

SEEN = []


class Strict(Gate):
    """Promotes nothing."""

    def decide(self, challenger, champion):
        SEEN.append((self.round, challenger, champion))
        return Decision(promote=False, reasons=("never", "ever"))


REGISTRY = Registry(plugins=[PluginInfo("gates", "strict", "own", "1.0", f"{__name__}:Strict")])


def metrics(**values):
    return {name: Metric(value=value) for name, value in values.items()}


def test_of_one_name_the_last_result_counts(bench):
    results = [bench.artifact("reward", metrics=metrics(ece=0.2, accuracy=0.7)),
               bench.artifact("reward", metrics=metrics(ece=0.1))]  # fmt: skip
    assert merged(results) == metrics(ece=0.1, accuracy=0.7)
    assert merged([]) == {}


def test_numbered_results_come_in_their_order_and_end_at_the_first_gap(bench):
    made = {f"challenger_{i}": bench.artifact("evaluation") for i in (10, *range(9, -1, -1), 12)}
    assert given(made, "challenger_") == [made[f"challenger_{i}"] for i in range(11)]
    assert given(made, "champion_") == []


def test_the_gate_sees_both_sides_and_the_decision_carries_the_challengers_metrics(bench):
    results = {
        "policy": bench.artifact("policy", metrics=metrics(loss=9)),
        "challenger_0": bench.artifact("reward", metrics=metrics(accuracy=0.8, ece=0.3)),
        "challenger_1": bench.artifact("evaluation", metrics=metrics(kl=2, ece=0.1)),
        "champion_0": bench.artifact("evaluation", metrics=metrics(kl=1)),
    }
    context = bench.context(REGISTRY, results, [("gate", "gates", Use(use="strict"))], "decision", round_=4)
    outcome = decide(context)
    measured = metrics(accuracy=0.8, ece=0.1, kl=2)
    assert [(4, measured, metrics(kl=1))] == SEEN
    assert outcome.metrics == measured
    assert outcome.info == {"promote": False, "reasons": ["never", "ever"], "summary": "never; ever"}
    assert json.loads((context.draft / "decision.json").read_text()) == {"promote": False, "reasons": ["never", "ever"]}
