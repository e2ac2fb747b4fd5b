"""Data source `label_studio`: the JSON export of a Label Studio project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_core.feedback.lettered import Said
from rlhf_plugins.data_sources._exported import ExportConfig, ExportedAnswers, Task, moment
from rlhf_plugins.labelling.label_studio import fields_in


class LabelStudioExport(ExportedAnswers):
    """Reads tasks with annotations: those of the annotator `label_studio` as they are, those of other projects with
    `prompt`, `samples`, `names` and `choices`. Knows the tags Choices, Pairwise, Ranker, Rating and TextArea.
    """

    program = "Label Studio"

    class Config(ExportConfig):
        """The file, and what its fields are called."""

    def task(self, item: Mapping[str, Any]) -> Task:
        """One task of the export."""
        data = dict(item["data"])
        if isinstance(data.get("items"), list):
            data |= {str(each["id"]): each.get("body", "") for each in data["items"]}
        low = int(data.get("low", self.config.low))
        return Task(data, [_said(each, low) for each in item.get("annotations") or ()])


def _said(annotation: Mapping[str, Any], low: int) -> Said:
    results = [each for each in annotation.get("result") or () if isinstance(each, dict)]
    by = annotation.get("completed_by")
    named = next((each["meta"]["annotator"] for each in results if "annotator" in (each.get("meta") or {})), None)
    who = named or (by.get("email") or by.get("id") if isinstance(by, dict) else by)
    return Said(
        "",
        str(who) if named or isinstance(by, dict) else f"label_studio {who}",
        fields_in(results, low),
        bool(annotation.get("was_cancelled")),
        moment(annotation.get("updated_at") or annotation.get("created_at")),
    )
