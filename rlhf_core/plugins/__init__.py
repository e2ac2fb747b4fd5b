"""The plugin contracts, one a file, and the registry that finds plugins through entry points."""

from rlhf_core.plugins.annotator import Annotator, DeferredAnnotator
from rlhf_core.plugins.base import ANY, CONTROL, TEXT, Plugin, PluginConfig, Saved, Use
from rlhf_core.plugins.converter import Converter
from rlhf_core.plugins.data_source import DataSource
from rlhf_core.plugins.evaluator import EvaluateJob, Evaluation, Evaluator, PastRound
from rlhf_core.plugins.gate import Decision, Gate
from rlhf_core.plugins.optimizer import OptimizeJob, Optimizer
from rlhf_core.plugins.policy import LanguageModelPolicy, Policy
from rlhf_core.plugins.reward_model import FitJob, RewardModel, Scores
from rlhf_core.plugins.selector import CONTROL_ARM, Candidate, Selector
from rlhf_core.plugins.step import EVENTS, PLACES, Event, EventName, Step, StepJob, StepOutcome, StepPlace, StepUse
from rlhf_core.plugins.warm_start import WarmStart

CONTRACTS: dict[str, type[Plugin]] = {
    contract.kind: contract
    for contract in (
        DataSource, Policy, WarmStart, Selector, Annotator, Converter, RewardModel, Optimizer, Evaluator, Gate,
        Step,
    )
}  # fmt: skip
"""Kind (plural) -> contract."""

__all__ = [
    "ANY", "CONTRACTS", "CONTROL", "CONTROL_ARM", "EVENTS", "PLACES", "TEXT",
    "Annotator", "Candidate", "Converter", "DataSource", "Decision", "DeferredAnnotator", "EvaluateJob", "Evaluation",
    "Evaluator", "Event", "EventName", "FitJob", "Gate", "LanguageModelPolicy", "OptimizeJob", "Optimizer", "PastRound",
    "Plugin", "PluginConfig", "Policy", "RewardModel", "Saved", "Scores", "Selector", "Step", "StepJob", "StepOutcome",
    "StepPlace", "StepUse", "Use", "WarmStart",
]  # fmt: skip
