"""The one Prefect task: a stage. A task runner of any kind may take it to any machine that has the same packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateDetails, StateType
from prefect.states import Cancelled, Completed, Failed

from rlhf_core.errors import DataError, PipelineError, PluginError, RlhfError, TrainingError, Waiting, WorkspaceError
from rlhf_flows.artifact_store import DamagedArtifact
from rlhf_flows.engine.job import Job, artifacts_of
from rlhf_flows.engine.results import Results
from rlhf_flows.engine.worker import do, forget_checkpoints
from rlhf_flows.stages.context import StageResult

WAITING = "Waiting"
"""Name of the state in which a stage, and the run that it belongs to, end when people have to answer first."""
USERS_MISTAKES = (PipelineError, PluginError, DataError, TrainingError, WorkspaceError, DamagedArtifact)
"""Errors that trying again does not mend."""


def retryable(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failed stage is tried again, where its limits allow it."""
    return not isinstance(error_of(state), USERS_MISTAKES)


@task(name="stage", persist_result=False, cache_policy=NO_CACHE, retry_condition_fn=retryable)
def stage(job: str, inputs: Mapping[str, str]) -> Any:
    """Do the stage of a `Job`, given as JSON, from the results behind its inputs, each as JSON too.

    Ends as Completed with the result as JSON (Cached where it was known), as Waiting where people have to answer
    first, or as Failed with the paragraph that a user reads.
    """
    work = Job.model_validate_json(job)
    if work.known is not None:
        get_run_logger().info("known already: %s", work.known.summary)
        return Completed(name="Cached", message=work.known.summary, data=work.known.model_dump_json())
    results = {name: StageResult.model_validate_json(text) for name, text in inputs.items()}
    try:
        result = do(work, results)
    except Waiting as error:
        return Cancelled(name=WAITING, message=str(error), data=error)
    except RlhfError as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    except SystemExit as error:
        ended = PluginError(f"a plugin ended the program: {error!r}.", where=f"stage {work.node.id}")
        return Failed(message=str(ended), data=ended)
    if work.node.cached:
        Results(artifacts_of(work.place)).put(work.key, result)
    forget_checkpoints(work.place.here(), work.key)
    return Completed(message=result.summary, data=result.model_dump_json())


def as_predecessor(result: StageResult, task_run: str) -> State[str]:
    """A finished stage as an input of another one: its result, and the task run that Prefect draws the edge from."""
    details = StateDetails(task_run_id=task_run) if task_run else StateDetails()  # type: ignore[arg-type]
    return State(type=StateType.COMPLETED, data=result.model_dump_json(), state_details=details)


def error_of(state: State[Any]) -> BaseException | None:
    """The error that a run ended with; None where it ended well."""
    if state.is_completed():
        return None
    found: Any = state.result(raise_on_failure=False, _sync=True)  # type: ignore[call-arg]
    return found if isinstance(found, BaseException) else RuntimeError(state.message or str(state.type))
