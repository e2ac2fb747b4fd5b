"""What tracking raises."""

from __future__ import annotations

from rlhf_core.errors import WorkspaceError


class TrackingError(WorkspaceError):
    """MLflow refuses an operation; `code` is its name for the reason, such as RESOURCE_ALREADY_EXISTS."""

    code = ""
