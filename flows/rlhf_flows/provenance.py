"""From a model to the labels behind it, for the terminal and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_core.tracking.lineage import LabelSummary, Lineage, label_rows, labels, lineage
from rlhf_core.tracking.tracker import Tracker
from rlhf_flows.artifact_store import Ref
from rlhf_flows.workspace import Workspace

Table = tuple[str, list[str], list[list[str]]]


@dataclass(frozen=True)
class Provenance:
    """A model's ancestors, and the feedback that each of them was trained on."""

    chain: Lineage
    snapshots: dict[str, LabelSummary]
    """Digest of each snapshot -> what it holds."""
    rows: dict[str, list[dict[str, Any]]]
    """Digest of each snapshot -> every label, where they were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **self.chain.to_json(),
            "snapshots": {digest: summary.to_json() for digest, summary in self.snapshots.items()},
            "labels": self.rows,
        }

    def tables(self) -> list[Table]:
        """Heading, columns and rows of what the terminal shows."""
        chain = [
            [
                f"{link.policy.name}/{link.policy.version}",
                str(link.policy.origin.round),
                ", ".join(link.policy.aliases),
                f"{link.reward.name}/{link.reward.version}" if link.reward else "",
                link.policy.origin.snapshot[:12],
                "; ".join((link.policy.gate or {}).get("reasons", [])),
            ]
            for link in self.chain.links
        ]
        tables: list[Table] = [
            ("policies, newest first", ["policy", "round", "alias", "reward model", "feedback", "gate"], chain)
        ]
        for digest, summary in self.snapshots.items():
            counts = [
                [what, name, str(number)]
                for what, group in (
                    ("annotator", summary.by_annotator),
                    ("source", summary.by_source),
                    ("kind", summary.by_kind),
                    ("round", summary.by_round),
                    ("asked because", summary.by_reason),
                )
                for name, number in group.items()
            ]
            span = f"{summary.total} labels, {summary.first[:19]} to {summary.last[:19]}"
            tables.append((f"feedback {digest[:12]}: {span}", ["by", "", "labels"], counts))
            if digest in self.rows:
                columns = ["feedback", "annotator", "when", "round", "asked_because", "prompt", "said"]
                rows = [[str(row[column])[:80] for column in columns] for row in self.rows[digest]]
                tables.append((f"every label of {digest[:12]}", columns, rows))
        return tables


def trace(workspace: Workspace, model: str, *, every_label: bool = False) -> Provenance:
    """Walk from `model` to its labels.

    `model` is a registered version (`NAME/3`), an alias (`NAME@champion`), or a pipeline, whose champion is meant.
    Raises RlhfError where there is no such model.
    """
    name, which = _named(model)
    pipeline = name.removesuffix("-policy")
    tracker = Tracker.open(workspace.folder, pipeline, workspace.mlflow_uri, workspace.mlflow_artifacts)
    chain = lineage(tracker, name, which)
    artifacts = workspace.open_artifacts()
    refs = {digest: Ref(kind="snapshot", uri=uri, sha256=digest) for digest, uri in chain.snapshots}
    folders = {digest: artifacts.path(ref) for digest, ref in refs.items() if ref in artifacts}
    return Provenance(
        chain=chain,
        snapshots={digest: labels(folder) for digest, folder in folders.items()},
        rows={digest: list(label_rows(folder)) for digest, folder in folders.items()} if every_label else {},
    )


def _named(model: str) -> tuple[str, str]:
    for separator in "@/":
        name, found, which = model.rpartition(separator)
        if found:
            return name, which
    return (model if model.endswith("-policy") else f"{model}-policy"), "champion"
