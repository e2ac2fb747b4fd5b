"""How far a reward model can be trusted: what it predicts beside what people said."""

from rlhf_core.health.confounds import confounds, pair_correlation, sentiment
from rlhf_core.health.held_out import (
    accuracy_by_annotator,
    by_annotators,
    held_out_annotators,
    held_out_ratings,
    leaks,
    length,
    margins,
    of_strangers,
    on_newest,
    only,
    position_preference,
    predict,
    predictions,
    predictions_of_people,
    without_questions,
)
from rlhf_core.health.patches import Patch, read_patches, regressions
from rlhf_core.health.preferences import (
    Predictions,
    accuracy,
    auc,
    both_orders,
    brier,
    calibration_table,
    confusion,
    ece,
    length_rule,
    log_loss,
    longer_first,
    longer_wins,
    preference_health,
    surer_first,
    weighted_mean,
)
from rlhf_core.health.ratings import pearson, rating_health, spearman, threshold_accuracy
from rlhf_core.health.temperature import fit_temperature, sigmoid

__all__ = [
    "Patch", "Predictions", "accuracy", "accuracy_by_annotator", "auc", "both_orders", "brier", "by_annotators",
    "calibration_table", "confounds", "confusion", "ece", "fit_temperature", "held_out_annotators", "held_out_ratings",
    "leaks", "length", "length_rule", "log_loss", "longer_first", "longer_wins", "margins", "of_strangers",
    "on_newest", "only", "pair_correlation", "pearson", "position_preference", "predict", "predictions",
    "predictions_of_people", "preference_health", "rating_health", "read_patches", "regressions", "sentiment",
    "sigmoid", "spearman", "surer_first", "threshold_accuracy", "weighted_mean", "without_questions",
]  # fmt: skip
