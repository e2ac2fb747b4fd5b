"""Whom a campaign waits for, and whether they have answered enough by now."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from rlhf_core.feedback.news import who_answered
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins import DeferredAnnotator
from rlhf_core.plugins.registry import Registry
from rlhf_core.run import Run
from rlhf_flows.artifact_store import Ref
from rlhf_flows.stages.artifacts_io import read_questions
from rlhf_flows.stages.collect import said_by
from rlhf_flows.workspace import Workspace


class Wait(BaseModel):
    """A campaign that waits; kept in the workspace from the moment it stops until its next command begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    questions: Ref
    annotators: tuple[int, ...]
    """Who has not answered enough: places in the pipeline's list."""


class Answered(NamedTuple):
    """How far those are whom a campaign waits for."""

    missing: int
    """Answers that the campaign still waits for; none where a deadline has passed."""
    outside: int
    """Answers that were given in another program and are not in the store yet."""


def wait_path(workspace: Path, pipeline: str) -> Path:
    """Where a pipeline's `Wait` lies."""
    return workspace / f"waiting-{pipeline}.json"


def answered(
    wait: Wait, pipeline: Pipeline, registry: Registry, workspace: Workspace, store: FeedbackStore
) -> Answered:
    """Look at what people have answered so far, in the store or wherever they answer. Nothing is asked or stored.

    Raises RlhfError where the program in which they answer is out of reach.
    """
    assert pipeline.ask is not None
    questions = [question.blind() for question in read_questions(workspace.open_artifacts().path(wait.questions))]
    known = who_answered(store, [question.id for question in questions])
    missing, outside = 0, set()
    for place in wait.annotators:
        use = pipeline.ask.annotators[place]
        run = Run()
        run.store_url, run.mlflow_uri = workspace.store_url, workspace.mlflow_store
        run.pipeline, run.round = pipeline.pipeline, wait.round
        annotator = registry.create("annotators", use, run)
        assert isinstance(annotator, DeferredAnnotator)
        given = list(said_by(annotator, use, annotator.collect(questions)))
        missing += annotator.missing(questions, given)
        outside |= {(each.question_id, each.annotator) for each in given} - known
    return Answered(missing, len(outside))
