"""Run by alembic: takes the connection that `tanzim.serve.store.database` opened."""

from alembic import context

from tanzim.serve.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
