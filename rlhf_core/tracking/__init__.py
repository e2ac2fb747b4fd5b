"""Tracking on MLflow; the only importer of mlflow, which is loaded by the first use of a `Tracker`."""

from rlhf_core.tracking.errors import TrackingError
from rlhf_core.tracking.lineage import LabelSummary, Lineage, Link, Trained, label_rows, labels, lineage, trained_on
from rlhf_core.tracking.registry import CHALLENGER, CHAMPION, ModelRegistry, ModelVersion, Origin
from rlhf_core.tracking.run import TrackedRun
from rlhf_core.tracking.tracker import Tracker

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "LabelSummary",
    "Lineage",
    "Link",
    "ModelRegistry",
    "ModelVersion",
    "Origin",
    "TrackedRun",
    "Tracker",
    "TrackingError",
    "Trained",
    "label_rows",
    "labels",
    "lineage",
    "trained_on",
]  # fmt: skip
