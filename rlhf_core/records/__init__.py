"""The words of the loop as data: prompts, samples, questions and the kinds of feedback.

Every record is immutable, reads and writes JSON, and is identified by its content: two records that say the same thing
have the same `id` in every process and on every machine. Fields that describe a record without being part of what it
says (token ids, timestamps) are left out of its identity.
"""

from rlhf_core.records.feedback import (
    FEEDBACK_KINDS,
    AnyFeedback,
    Comparison,
    Demonstration,
    Feedback,
    Ranking,
    Rating,
    Reaction,
    Skip,
    Source,
    feedback_from,
)
from rlhf_core.records.questions import Answer, Question
from rlhf_core.records.record import Record, content_id
from rlhf_core.records.samples import Episode, Message, Modality, Prompt, Sample, Split, Trajectory, distinct

__all__ = [
    "FEEDBACK_KINDS",
    "Answer",
    "AnyFeedback",
    "Comparison",
    "Demonstration",
    "Episode",
    "Feedback",
    "Message",
    "Modality",
    "Prompt",
    "Question",
    "Ranking",
    "Rating",
    "Reaction",
    "Record",
    "Sample",
    "Skip",
    "Source",
    "Split",
    "Trajectory",
    "content_id",
    "distinct",
    "feedback_from",
]
