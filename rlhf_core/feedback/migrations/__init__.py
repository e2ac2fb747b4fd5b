"""Alembic migrations of the feedback store; applied by `rlhf_core.feedback.database`, never by hand."""
