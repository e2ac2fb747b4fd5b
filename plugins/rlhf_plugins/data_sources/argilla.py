"""Data source `argilla`: records as Argilla's `records.to_json` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_core.feedback.lettered import Said
from rlhf_plugins.data_sources._exported import ExportConfig, ExportedAnswers, Task
from rlhf_plugins.labelling.argilla import field_in


class ArgillaExport(ExportedAnswers):
    """Reads records with responses: those of the annotator `argilla` as they are, those of other datasets with
    `prompt`, `samples`, `names` and `choices`. The file does not say which responses were drafts or discarded.
    """

    program = "Argilla"

    class Config(ExportConfig):
        """The file, and what its fields are called."""

    def task(self, item: Mapping[str, Any]) -> Task:
        """One record of the export."""
        known = item.get("metadata") or {}
        by_user: dict[str, dict[str, Any]] = {}
        for name, given in (item.get("responses") or {}).items():
            for response in given:
                field, value = field_in(name, response["value"])
                by_user.setdefault(str(response["user_id"]), {})[field] = value
        said = [Said("", str(known.get(user, f"argilla {user}")), fields) for user, fields in by_user.items()]
        return Task({**known, **item["fields"]}, said)
