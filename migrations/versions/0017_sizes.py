"""What is no metadata is refused: values of documents, errors and code have a largest size.

Revision: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

BYTES = 16 << 20
LIMITED = {
    "definition": ["facts"],
    "part": ["source"],
    "span": ["attributes", "error"],
    "document": ["fields"],
    "failure": ["error", "traceback"],
    "check_result": ["message", "traceback"],
    "check_standing": ["findings"],
}


def upgrade() -> None:
    for table, columns in LIMITED.items():
        for name in columns:
            small: sa.ColumnElement[bool] = sa.func.pg_column_size(sa.column(name)) <= BYTES
            op.create_check_constraint(op.f(f"ck_{table}_{name}_size"), table, small)


def downgrade() -> None:
    for table, columns in LIMITED.items():
        for name in columns:
            op.drop_constraint(op.f(f"ck_{table}_{name}_size"), table, type_="check")
