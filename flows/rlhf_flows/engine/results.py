"""Results of stages under their keys, in the artifact store's root, through Prefect's result store."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rlhf_flows.artifact_store import ArtifactStore
from rlhf_flows.stages.context import StageResult

FOLDER = "results"


class Finished(BaseModel):
    """A stage that is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    result: StageResult
    task_run: str = ""
    """Id of the Prefect task run that did it, so that later runs can be shown as its successors."""


class Results:
    """What is known already, on this machine or any other that shares the artifact root.

    A record is Prefect's, written and read by `prefect.results.ResultStore`; its value is a `StageResult` as JSON.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts

    @cached_property
    def _store(self) -> Any:
        from prefect.results import ResultStore
        from prefect.serializers import JSONSerializer

        from rlhf_flows.engine.result_storage import ResultDocuments

        storage = ResultDocuments.of(self.artifacts, FOLDER)
        return ResultStore(result_storage=storage, serializer=JSONSerializer(), cache_result_in_memory=False)

    def get(self, key: str) -> StageResult | None:
        """The result under `key`, where it is complete and its artifact is there. Half a record, left by a kill, is no
        result; the stage will write it anew.
        """
        try:
            result = StageResult.model_validate_json(self._store.read(key).result)
        except (FileNotFoundError, ValidationError, ValueError, KeyError, TypeError):
            return None
        return result if result.ref in self.artifacts else None

    def put(self, key: str, result: StageResult) -> None:
        """Keep a result under its key."""
        self._store.write(result.model_dump_json(), key=key)
