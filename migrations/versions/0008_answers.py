"""What models were asked and answered; of what a unit cost, the tokens that the provider had cached, and the models.

Revision: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("spent", sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False))
    models = sa.Column(
        "models",
        sa.Text(),
        server_default="",
        nullable=False,
        comment="the models that were asked, with commas between",
    )
    op.add_column("spent", models)
    op.create_table(
        "answer",
        sa.Column("project", sa.Text(), nullable=False, comment="its name, as in the key"),
        sa.Column(
            "digest",
            postgresql.BYTEA(),
            nullable=False,
            comment="of the question: the model behind the alias, the messages, the parameters",
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="the object with question and answer"),
        sa.PrimaryKeyConstraint("project", "digest", "at", name=op.f("pk_answer")),
        comment="what models were asked and answered",
    )


def downgrade() -> None:
    op.drop_table("answer")
    op.drop_column("spent", "models")
    op.drop_column("spent", "cached_tokens")
