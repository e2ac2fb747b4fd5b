"""Run by Alembic: migrates the connection that `rlhf_core.feedback.database` hands over, in its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite does roll back DDL; Alembic assumes that it does not, for the sake of old Python versions.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
