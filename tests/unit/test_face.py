"""The face: what does `import assetcore` promise, and what does it cost?"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import assetcore

FACE = {
    "DocumentList", "RetryPolicy", "pipeline_flow", "pipeline_task",
    "Asset", "AssetcoreError", "Daily", "DeclarationError", "Document", "Dynamic", "Folder", "Graph", "Hit", "Hourly", "MakeError",
    "NothingSelectedError", "Partition", "Plan", "ProjectError", "RunResult", "SchemaError", "SearchIndex", "SelectionError",
    "ServiceError", "Session", "Settings", "SettingsError", "Source", "SourceError", "StaleInputError", "Static", "StorageError",
    "UsageError", "asset", "bucket", "check", "collect", "each", "find_root", "folder", "get_pipeline_logger", "load", "open_project",
    "scan", "source",
    "spend", "table", "urls",
}  # fmt: skip
"""The promise. A name that leaves it breaks somebody's import: then CHANGELOG.md says what to do."""
HEAVY = (
    "prefect",
    "polars",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "pydantic",
    "networkx",
    "numpy",
    "fsspec",
    "redis",
    "click",
    "rich",
    "lark",
)
DECLARING = "from assetcore import Document, asset, collect, each, folder, source"


def test_the_face_is_this_list() -> None:
    """`__all__` is the snapshot, without repetition, and has at most 50 names."""
    assert set(assetcore.__all__) == FACE
    assert len(assetcore.__all__) == len(FACE) <= 50


def test_the_face_is_what_dir_and_help_show() -> None:
    """Names that are imported on first use are listed from the beginning."""
    assert set(dir(assetcore)) >= FACE


@pytest.mark.parametrize("name", sorted(FACE))
def test_every_name_can_be_imported_and_is_documented(name: str) -> None:
    """`from assetcore import NAME` works, and the thing and its public members say what they are."""
    thing = vars(__import__("assetcore", fromlist=[name]))[name]
    if inspect.ismodule(thing):  # the room of that name was imported first, and stands in the place of its function
        thing = getattr(thing, name)
    assert inspect.getdoc(thing), f"{name} has no docstring"
    if inspect.isclass(thing):
        silent = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_") and _is_verb(value) and not inspect.getdoc(getattr(thing, member))
        ]
        assert not silent, f"{name}: {silent} have no docstring"


def test_importing_the_face_imports_nothing_else() -> None:
    """`import assetcore` alone loads no room and no library; declaring loads what a declaration takes."""
    assert _modules("import assetcore", "assetcore.") == []
    assert _modules("import assetcore", *HEAVY) == []
    assert _modules(DECLARING, "prefect", "pandas", "sqlalchemy", "fsspec", "redis", "click", "rich", "lark") == []


def test_asking_and_calling_load_only_their_own_libraries() -> None:
    """A session loads no Redis and no Prefect before a run; a process that calls functions, also those that ask models, no database."""
    assert _modules("import assetcore.session", "prefect", "pandas", "redis", "httpx", "networkx") == []
    calling = "import assetcore.runners.worker, assetcore.llm"
    assert _modules(calling, "prefect", "pandas", "sqlalchemy", "redis", "httpx") == []


def test_importing_costs_few_modules() -> None:
    """Counted, because time is the machine's: 150 ms above bare Python are some 600 modules, and declaring takes fewer."""
    bare = len(_modules("pass", ""))
    assert len(_modules("import assetcore", "")) - bare <= 40
    assert len(_modules(DECLARING, "")) - bare <= 500


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As for every module, and with its name."""
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        assetcore.nothing_of_this_name  # noqa: B018 - the access is the test


def _is_verb(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)


def _modules(statement: str, *beginnings: str) -> list[str]:
    """The modules with these beginnings of their names that a fresh interpreter has loaded after a statement."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [m for m in json.loads(run.stdout) if m.startswith(beginnings)]
