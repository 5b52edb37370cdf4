"""Alembic's door: runs the migrations on the connection that `assetcore.lineage.schema` hands over."""

from __future__ import annotations

from alembic import context

from assetcore.lineage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
