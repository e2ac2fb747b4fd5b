"""MLflow's own review queues: traces that people answer questions about, in MLflow's user interface."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rlhf_core.records import content_id
from rlhf_core.tracking.client import refusal_explained
from rlhf_core.tracking.errors import TrackingError
from rlhf_core.tracking.tracker import Tracker

PAGE = 100
ITEM_TAG = "rlhf.item"
"""Tag of a trace: what it asks about."""


@dataclass(frozen=True)
class Field:
    """One thing that reviewers are asked about a trace: a choice, a number or a text."""

    name: str
    """What it is called in the user interface, and what its answers are found by."""
    instruction: str = ""
    options: tuple[str, ...] = ()
    """A choice of one of these."""
    low: float | None = None
    """With `high`: a number from `low` to `high`."""
    high: float | None = None
    comment: bool = False
    """Whether a comment can be given with it."""


class Item(NamedTuple):
    """What is asked about."""

    key: str
    request: Any
    """What the trace shows as its input: JSON, shown as text."""
    response: Any
    """What it shows as its output."""


class Reviewed(NamedTuple):
    """What one reviewer said to one item."""

    key: str
    reviewer: str
    values: dict[str, Any]
    """Field name -> value."""
    comments: dict[str, str]
    declined: bool
    at: datetime


@dataclass
class ReviewQueue:
    """One review queue of one experiment. The queue, its fields and the experiment are made where they are missing."""

    uri: str
    """Database URL, or address of an MLflow server."""
    experiment: str
    name: str
    fields: Sequence[Field]
    reviewers: Sequence[str] = ()
    """Who is assigned; the queue is open to everybody who sees the experiment where empty."""
    _tracker: Tracker = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._tracker = Tracker.at(self.uri, self.experiment)

    def add(self, items: Sequence[Item]) -> None:
        """Put items into the queue; those that are there stay as they are."""
        if not items:
            return
        with refusal_explained(self.uri):
            queue, known = self._queue(), self._statuses()
            fresh = [item for item in items if self._trace_id(item.key) not in known]
            for item in fresh:
                self._log_trace(item)
            ids = [self._trace_id(item.key) for item in fresh]
            for start in range(0, len(ids), PAGE):
                self._store.add_items_to_review_queue(queue.queue_id, item_ids=ids[start : start + PAGE])

    def reviewed(self) -> Iterator[Reviewed]:
        """What reviewers said to the items that are marked as complete, and who declined one; in a fixed order."""
        with refusal_explained(self.uri):
            statuses = self._statuses()
            done = sorted(trace_id for trace_id, (status, *_) in statuses.items() if status != "pending")
            for start in range(0, len(done), PAGE):
                for info in self._store.batch_get_trace_infos(done[start : start + PAGE]):
                    yield from _reviewed(info, *statuses[info.trace_id])

    @property
    def _store(self) -> Any:
        return self._tracker.client.store

    def _queue(self) -> Any:
        experiment = self._tracker.experiment_id
        found = self._found()
        if found is not None:
            return found
        schemas = [self._schema(experiment, each) for each in self.fields]
        return self._store.create_review_queue(
            experiment, name=self.name, queue_type="custom", users=list(self.reviewers), schema_ids=schemas
        )

    def _found(self) -> Any:
        try:
            return self._store.get_review_queue_by_name(self._tracker.experiment_id, name=self.name)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _schema(self, experiment: str, asked: Field) -> str:
        """Id of the label schema that asks the field."""
        from mlflow.genai.label_schemas import InputCategorical, InputNumeric, InputText

        kind: Any = InputText()
        if asked.options:
            kind = InputCategorical(options=list(asked.options))
        elif asked.low is not None:
            kind = InputNumeric(min_value=asked.low, max_value=asked.high)
        try:
            known = self._store.get_label_schema_by_name(experiment, asked.name)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            made = self._store.create_label_schema(
                experiment, name=asked.name, type="feedback", input=kind, instruction=asked.instruction or None,
                enable_comment=asked.comment,
            )  # fmt: skip
            return str(made.schema_id)
        if known.input != kind:
            raise TrackingError(
                f"MLflow's experiment `{self.experiment}` asks `{asked.name}` in another way already.",
                where=self.uri,
                remedy="Give the criterion another name, or delete that label schema in MLflow.",
            )
        return str(known.schema_id)

    def _statuses(self) -> dict[str, tuple[str, str, datetime]]:
        """Trace id -> status, who set it (empty where nobody is known), and when."""
        found: dict[str, tuple[str, str, datetime]] = {}
        queue = self._found()
        token = None
        while queue is not None:
            page = self._store.list_review_queue_items(queue.queue_id, max_results=PAGE, page_token=token)
            for item in page:
                milliseconds = item.completed_time_ms or item.last_update_time_ms
                found[item.item_id] = (str(item.status.value), item.completed_by or "", _moment(milliseconds))
            token = page.token
            if not token:
                break
        return found

    def _trace_id(self, key: str) -> str:
        return f"tr-{content_id([self.experiment, self.name, key])}"

    def _log_trace(self, item: Item) -> None:
        """One finished trace with one span that holds the request and the response."""
        from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode

        trace_id, experiment, now = self._trace_id(item.key), self._tracker.experiment_id, time.time_ns()
        request, response = (json.dumps(part, ensure_ascii=False) for part in (item.request, item.response))
        digits = trace_id.removeprefix("tr-")
        values: Mapping[str, str] = {
            "mlflow.traceRequestId": json.dumps(trace_id),
            "mlflow.spanInputs": request,
            "mlflow.spanOutputs": response,
            "mlflow.spanType": '"UNKNOWN"',
        }
        span = ReadableSpan(
            name="question",
            context=SpanContext(trace_id=int(digits, 16), span_id=int(digits[:16], 16) or 1, is_remote=False),
            attributes=values,
            status=Status(StatusCode.OK),
            start_time=now,
            end_time=now,
        )
        self._store.start_trace(
            TraceInfo(
                trace_id=trace_id,
                trace_location=TraceLocation.from_experiment_id(experiment),
                request_time=now // 1_000_000,
                execution_duration=0,
                state=TraceState.OK,
                request_preview=request[:1000],
                response_preview=response[:1000],
                tags={ITEM_TAG: item.key, "mlflow.traceName": "question"},
            )
        )
        self._store.log_spans(experiment, [Span(span)])


def _reviewed(info: Any, status: str, by: str, at: datetime) -> Iterator[Reviewed]:
    key = info.tags.get(ITEM_TAG, "")
    if status == "declined":
        yield Reviewed(key, by or "mlflow", {}, {}, True, at)
        return
    values: dict[str, dict[str, Any]] = {}
    comments: dict[str, dict[str, str]] = {}
    last: dict[str, int] = {}
    for each in sorted(info.assessments, key=lambda each: each.last_update_time_ms or 0):
        if each.valid is False or each.source.source_type != "HUMAN" or each.feedback is None:
            continue
        who = each.source.source_id or "mlflow"
        values.setdefault(who, {})[each.name] = each.feedback.value
        if each.rationale:
            comments.setdefault(who, {})[each.name] = each.rationale
        last[who] = each.last_update_time_ms or 0
    for who in sorted(values):
        yield Reviewed(key, who, values[who], comments.get(who, {}), False, _moment(last[who]))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
