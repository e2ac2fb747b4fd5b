"""A snapshot together with what converters derive from it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.rows import ANSWERS_FILE, answer_row
from rlhf_core.feedback.snapshot import Snapshot, write_snapshot
from rlhf_core.plugins.converter import Converter
from rlhf_core.records import FEEDBACK_KINDS, Answer

ROWS_AT_A_TIME = 2000


def convert_snapshot(snapshot: Snapshot, converters: Sequence[Converter]) -> Snapshot:
    """Write the snapshot anew, with what the converters derive from it; each also sees what those before it derived.

    Memory holds what is derived.
    """
    stored = FeedbackSet.open(snapshot.folder)
    derived: dict[str, Answer] = {}
    for converter in converters:
        takes = tuple(converter.takes)
        kinds = [name for name, kind in FEEDBACK_KINDS.items() if issubclass(kind, takes)]
        earlier = [answer for answer in derived.values() if isinstance(answer.feedback, takes)]
        found = converter.convert(chain(stored.only(*kinds).answers(), earlier))
        derived |= {answer.feedback.id: answer for answer in found}
    rows = heapq.merge(_stored_rows(snapshot), sorted(map(answer_row, derived.values()), key=_place), key=_place)
    parts = iter(lambda: list(islice(rows, ROWS_AT_A_TIME)), [])
    return write_snapshot(snapshot.folder, parts, snapshot.watermark)


def _stored_rows(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with pa.memory_map(str(snapshot.folder / ANSWERS_FILE)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    # Of one annotator's revisions only the newest is in a snapshot, so that these three say it all.
    return row["question_id"], row["annotator"], row["feedback_id"]
