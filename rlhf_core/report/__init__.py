"""Reports: pure functions from what a campaign found to one self-contained HTML page."""

from rlhf_core.report.data import About, CalibrationBin, FeedbackSummary, RoundData, SampleRow
from rlhf_core.report.pages import campaign_report, round_report
from rlhf_core.report.words import campaign_headline, round_headline

__all__ = [
    "About",
    "CalibrationBin",
    "FeedbackSummary",
    "RoundData",
    "SampleRow",
    "campaign_headline",
    "campaign_report",
    "round_headline",
    "round_report",
]
