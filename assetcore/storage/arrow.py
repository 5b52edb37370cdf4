"""Arrow: how is it imported when it is first used, and not before?

Importing Arrow brings NumPy and takes 0.2 s of CPU: a fifth of what a plan costs that finds nothing to do and reads no pack.
`from assetcore.storage.arrow import pa, pq` stands for `import pyarrow as pa` and `import pyarrow.parquet as pq`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["pa", "pq"]

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:

    class _Later:
        """A module, imported when something of it is asked for; that is found at once from then on."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            found = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, found)
            return found

    pa, pq = _Later("pyarrow"), _Later("pyarrow.parquet")
