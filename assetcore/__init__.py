"""assetcore: an asset graph over documents, on top of Prefect.

    from assetcore import Document, asset, collect, each, folder, source

    class Topic(Document):
        "One page of the reference."

    topics = source("topics", Topic, folder("data/topics", pattern="*.txt"))

    @asset
    async def summary(topic: Topic = each(topics)) -> Summary: ...

`aipctl materialize` makes what is stale, and only that; `aipctl why` and `aipctl lineage` explain it. This module is the face: the
names below are the promise, and importing it does nothing else (each is imported when it is first used).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assetcore.assets import Asset, Source
    from assetcore.checks import check
    from assetcore.declarations import asset, collect, each, source
    from assetcore.documents import Document
    from assetcore.errors import (
        AssetcoreError,
        DeclarationError,
        MakeError,
        NothingSelectedError,
        ProjectError,
        SchemaError,
        SelectionError,
        ServiceError,
        SettingsError,
        SourceError,
        StaleInputError,
        StorageError,
        UsageError,
    )  # fmt: skip
    from assetcore.graph import Graph
    from assetcore.loading import find_root, load
    from assetcore.opening import open_project, scan
    from assetcore.partitions import Daily, Dynamic, Hourly, Partition, Static
    from assetcore.pipelines import DocumentList, RetryPolicy, pipeline_flow, pipeline_task
    from assetcore.plan import Plan
    from assetcore.results import RunResult
    from assetcore.search import Hit, SearchIndex
    from assetcore.session import Session
    from assetcore.settings import Settings
    from assetcore.sources import Folder, bucket, folder, table, urls
    from assetcore.spending import spend
    from assetcore.telemetry import get_pipeline_logger

_HOMES = {
    "assetcore.assets": ("Asset", "Source"),
    "assetcore.checks": ("check",),
    "assetcore.declarations": ("asset", "collect", "each", "source"),
    "assetcore.documents": ("Document",),
    "assetcore.errors": (
        "AssetcoreError", "DeclarationError", "MakeError", "NothingSelectedError", "ProjectError", "SchemaError", "SelectionError",
        "ServiceError", "SettingsError", "SourceError", "StaleInputError", "StorageError", "UsageError",
    ),
    "assetcore.graph": ("Graph",),
    "assetcore.opening": ("open_project", "scan"),
    "assetcore.partitions": ("Daily", "Dynamic", "Hourly", "Partition", "Static"),
    "assetcore.pipelines": ("DocumentList", "RetryPolicy", "pipeline_flow", "pipeline_task"),
    "assetcore.plan": ("Plan",),
    "assetcore.loading": ("find_root", "load"),
    "assetcore.search": ("Hit", "SearchIndex"),
    "assetcore.results": ("RunResult",),
    "assetcore.session": ("Session",),
    "assetcore.settings": ("Settings",),
    "assetcore.sources": ("Folder", "bucket", "folder", "table", "urls"),
    "assetcore.spending": ("spend",),
    "assetcore.telemetry": ("get_pipeline_logger",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [  # noqa: RUF022 - by what they are for
    # declare
    "Asset", "Document", "Folder", "SearchIndex", "Source", "asset", "bucket", "check", "collect", "each", "folder", "source", "table",
    "urls",
    # divide
    "Daily", "Dynamic", "Hourly", "Partition", "Static",
    # plain work in Prefect
    "DocumentList", "RetryPolicy", "pipeline_flow", "pipeline_task",
    # use
    "Graph", "Hit", "Plan", "RunResult", "Session", "Settings", "find_root", "get_pipeline_logger", "load", "open_project", "scan",
    "spend",
    # errors
    "AssetcoreError", "DeclarationError", "MakeError", "NothingSelectedError", "ProjectError", "SchemaError", "SelectionError",
    "ServiceError", "SettingsError", "SourceError", "StaleInputError", "StorageError", "UsageError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'assetcore' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
