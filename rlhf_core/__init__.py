"""What the loop is made of: records, plugin contracts, feedback, language models, tracking.

Everything a plugin author needs is importable from here.
"""

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import (
    ANY,
    CONTROL,
    TEXT,
    Annotator,
    Candidate,
    Converter,
    DataSource,
    Decision,
    DeferredAnnotator,
    EvaluateJob,
    Evaluation,
    Evaluator,
    Event,
    FitJob,
    Gate,
    LanguageModelPolicy,
    OptimizeJob,
    Optimizer,
    PluginConfig,
    Policy,
    RewardModel,
    Scores,
    Selector,
    Step,
    StepJob,
    StepOutcome,
    Use,
    WarmStart,
)
from rlhf_core.records import (
    Answer,
    Comparison,
    Demonstration,
    Episode,
    Feedback,
    Message,
    Prompt,
    Question,
    Ranking,
    Rating,
    Reaction,
    Sample,
    Skip,
    Trajectory,
)
from rlhf_core.run import Run

__all__ = [
    "ANY", "CONTROL", "TEXT",
    "Annotator", "Answer", "Candidate", "Comparison", "Converter", "DataSource", "Decision", "DeferredAnnotator",
    "Demonstration", "Episode", "EvaluateJob", "Evaluation", "Evaluator", "Event", "Feedback", "FitJob", "Gate",
    "LanguageModelPolicy", "Message", "Metric", "OptimizeJob", "Optimizer", "PluginConfig", "Policy", "Prompt",
    "Question", "Ranking", "Rating", "Reaction", "RewardModel", "RlhfError", "Run", "Sample", "Scores", "Selector",
    "Skip", "Step", "StepJob", "StepOutcome", "Trajectory", "Use", "WarmStart",
]  # fmt: skip
