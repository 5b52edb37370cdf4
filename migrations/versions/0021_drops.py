"""Environments that were dropped know when: what one was before is told apart from what it is when it is created again.

Revision: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "environment",
        sa.Column(
            "drops", postgresql.ARRAY(sa.BigInteger()), nullable=False, server_default="{}",
            comment="the commits since which nothing was current in it, until it was created again",
        ),
    )  # fmt: skip
    environment = sa.table("environment", *map(sa.column, ("project_id", "name", "drops")))
    columns = map(sa.column, ("project_id", "what", "environment"))
    j = sa.table("journal", *columns, sa.column("facts", postgresql.JSONB)).c
    number = sa.cast(j.facts["number"].astext, sa.BigInteger)
    told = (
        sa.select(
            j.project_id, j.environment, sa.func.array_agg(postgresql.aggregate_order_by(number, number)).label("drops")
        )
        .where(j.what == "env drop", number.is_not(None))
        .group_by(j.project_id, j.environment)
        .subquery()
    )
    same = sa.and_(environment.c.project_id == told.c.project_id, environment.c.name == told.c.environment)
    op.execute(sa.update(environment).where(same).values(drops=told.c.drops))


def downgrade() -> None:
    op.drop_column("environment", "drops")
