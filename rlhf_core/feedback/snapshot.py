"""A frozen copy of the feedback that counts: an Arrow file and its digest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import StoreError
from rlhf_core.feedback.rows import ANSWERS_FILE, arrow_schema
from rlhf_core.files import replaced

SUMMARY_FILE = "snapshot.json"


class Snapshot(BaseModel):
    """What a snapshot holds; stands beside it as `snapshot.json`. `FeedbackSet.open(folder)` opens the answers."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    folder: Path
    digest: str
    """SHA-256 over the ids of the answers, in order, with the splits of their prompts: the same answers give the same
    digest, whatever order and process they came from and whichever database they lie in."""
    rows: int
    kinds: dict[str, int]
    """Answers by kind."""
    annotators: dict[str, int]
    """Answers by annotator."""
    splits: dict[str, int]
    """Answers by split."""
    watermark: int
    """Answers first accepted after this one are not in it."""

    @classmethod
    def read(cls, folder: Path) -> Snapshot:
        """The summary of the snapshot in `folder`."""
        stored = json.loads((folder / SUMMARY_FILE).read_text("utf-8"))
        return cls.model_validate({**stored, "folder": folder})


def write_snapshot(folder: Path, parts: Iterable[list[dict[str, Any]]], watermark: int) -> Snapshot:
    """Write snapshot rows, which come in order and in parts, to `folder`; a kill leaves the old snapshot or none.

    Memory holds one part at a time. Raises StoreError where the folder cannot be written.
    """
    import pyarrow as pa

    schema = arrow_schema()
    digest = hashlib.sha256()
    counters: dict[str, Counter[str]] = {"kind": Counter(), "annotator": Counter(), "split": Counter()}
    try:
        with replaced(folder / ANSWERS_FILE) as draft, pa.ipc.new_stream(draft, schema) as writer:
            for rows in parts:
                for row in rows:
                    digest.update(f"{row['feedback_id']} {row['split']}\n".encode())
                for name, counter in counters.items():
                    counter.update(row[name] for row in rows)
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
        snapshot = Snapshot(
            folder=folder,
            digest=digest.hexdigest(),
            rows=counters["kind"].total(),
            kinds=_sorted(counters["kind"]),
            annotators=_sorted(counters["annotator"]),
            splits=_sorted(counters["split"]),
            watermark=watermark,
        )
        (folder / SUMMARY_FILE).write_text(snapshot.model_dump_json(exclude={"folder"}, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise StoreError(
            f"the snapshot cannot be written: {error.strerror or error}",
            where=str(folder),
            remedy="Free some space or name another folder; the feedback itself is safe.",
        ) from error
    return snapshot


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))
