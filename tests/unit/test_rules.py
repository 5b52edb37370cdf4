"""The house rules: no module of the package or of the projects does what nobody here does, and each anti-pattern is caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules import findings, modules, secrets

REPOSITORY = Path(__file__).parents[2]

ALLOWED = {
    ("assetcore/__init__.py", "dynamic-import"): "the face: each name is imported when it is first used",
    ("assetcore/cli/__init__.py", "dynamic-import"): "a verb's module is imported when the verb is called",
    ("assetcore/loading.py", "dynamic-import"): "a user's project is imported by its name: that is what loading is",
    ("assetcore/loading.py", "global"): "which modules a project brought into this process, to import them anew",
    ("assetcore/fingerprint/names.py", "dynamic-import"): "what a user's import statement names is followed",
    ("assetcore/fingerprint/files.py", "global"): "parsed files by their stamp: parsing is most of a plan's time",
    ("assetcore/runners/clusters.py", "dynamic-import"): "dask and ray are extras",
    ("assetcore/runners/clusters.py", "logging"): "the log of dask's own workers, which come and go as they should",
    ("assetcore/preload.py", "dynamic-import"): "what it imports ahead is a list, and above it; so is the command itself",
    ("assetcore/running.py", "dynamic-import"): "Prefect takes a second to import: only for a run",
    ("assetcore/stack/__init__.py", "dynamic-import"): "a client of each service, before the clock of `check` runs",
    ("assetcore/storage/arrow.py", "dynamic-import"): "pyarrow with its own allocator",
    ("assetcore/sources/postgres.py", "sql"): "the query that a user wrote, against the user's own database",
    ("assetcore/telemetry.py", "logging"): "the one place where loggers are made",
}  # fmt: skip
"""What breaks a rule for a reason."""

CAUGHT = [
    ("vector-store", "import chromadb", "import pgvector"),
    ("vector-store", "from qdrant_client import QdrantClient", "from pgvector.sqlalchemy import HALFVEC"),
    ("provider", "from openai import AsyncOpenAI", "from assetcore import llm"),
    ("provider", "import anthropic", "from assetcore.llm import generate"),
    ("provider", "from google import genai", "from google.protobuf import message"),
    ("provider", "URL = 'https://api.openai.com/v1'", "URL = 'http://127.0.0.1:4000/v1'"),
    ("print", "def f(): print('x')", "def f(): logger.info('x')"),
    ("logging", "import logging\nlog = logging.getLogger(__name__)", "log = get_pipeline_logger(__name__)"),
    ("notify", "from assetcore.notify import tell", "from assetcore import asset"),
    ("notify", "async def f(): await pushover.send('failed')", "async def f(): raise ValueError('failed')"),
    ("retries", "@task(retries=3)\nasync def f(): ...", "@task(retries=0)\nasync def f(): ..."),
    ("prefect", "from prefect import task", "from assetcore import pipeline_task"),
    ("parameters", "@pipeline_flow\nasync def f(content: bytes): ...", "@pipeline_flow\nasync def f(d: DocumentList): ..."),
    ("parameters", "@flow\nasync def f(rows: pd.DataFrame | None = None): ...", "async def f(rows: pd.DataFrame): ..."),
    ("large-column", "c = sa.Column('body', JSONB)", "c = sa.Column('key', sa.Text)"),
    ("large-column", "c = mapped_column(LargeBinary())", "c = mapped_column(String())"),
    ("dynamic-import", "import importlib\nm = importlib.import_module(name)", "import importlib.metadata"),
    ("dynamic-import", "m = __import__('os')", "import os"),
    ("global", "known = {}\ndef register(x): known[x] = 1", "known = {'a': 1}\ndef of(x): return known[x]"),
    ("global", "seen = []\ndef note(x): seen.append(x)", "def note(x):\n    seen = []\n    seen.append(x)"),
    ("global", "count = 0\ndef more():\n    global count\n    count += 1", "def more(count): return count + 1"),
    ("blocks", "async def f(): open('x')", "def f(): open('x')"),
    ("blocks", "async def f(): time.sleep(1)", "async def f(): await asyncio.sleep(1)"),
    ("blocks", "async def f(): return requests.get(url)", "async def f(): return await client.get(url)"),
    ("blocks", "async def f(): return path.read_text()", "async def f(): return await asyncio.to_thread(path.read_text)"),
    ("blocks", "async def f(): os.system('x')", "async def f():\n    def g(): os.system('x')\n    await asyncio.to_thread(g)"),
    ("sql", "from sqlalchemy import text\nq = text('x')", "from rich import text\nq = text('x')"),
    ("sql", "import sqlalchemy as sa\nq = sa.text('x')", "import sqlalchemy as sa\nq = sa.select(t)"),
    ("sql", "async def f(c): await c.execute('SELECT 1')", "async def f(c): await c.execute(sa.select(t))"),
    ("sql", "async def f(c, n): await c.fetch(f'delete from {n}')", "async def f(c): await c.fetch(statement)"),
    ("key", "async def f(bucket): await bucket.write('a/b', b'')", "async def f(bucket, key): await bucket.write(key, b'')"),
    ("key", "async def f(s, x): await s.bucket.write(f'{x}/b', b'')", "async def f(file): file.write('a/b')"),
    ("secret", f"KEY = 'sk-proj-{'a1' * 12}'", "KEY = os.environ['OPENAI_API_KEY']"),
    ("secret", f"aws = 'AKIA{'B2' * 8}'", "aws = 'AKIA'"),
    ("key", "k = Key(f'{project}/mine')", "k = object_key(project, flow, at, step, name)"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "wrong", "right"), CAUGHT)
def test_each_anti_pattern_is_caught_and_its_neighbour_is_not(rule: str, wrong: str, right: str) -> None:
    """What seed 0 warns of, as it would be written, breaks its rule; what should be written instead breaks none."""
    assert {finding.rule for finding in findings(wrong, project=True)} == {rule}
    assert findings(right, project=True) == []


@pytest.mark.parametrize("folder", ["assetcore", "projects"])
def test_the_house_keeps_its_rules(folder: str) -> None:
    """Every module of the package and of the projects; an exception has its reason above."""
    broken = [
        f"{name}:{finding.line}: {finding.rule}: {finding.what}"
        for file in modules(REPOSITORY / folder)
        for finding in findings(file.read_text("utf-8"), project=folder == "projects")
        if ((name := str(file.relative_to(REPOSITORY))), finding.rule) not in ALLOWED
    ]
    assert broken == []


def test_no_secret_is_in_the_repository() -> None:
    """Neither in code nor in what is deployed, documented or tested with it."""
    folders = ("assetcore", "migrations", "projects", "stack", "tests", ".github", ".ci")
    files = [
        f
        for folder in folders
        for f in (REPOSITORY / folder).rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    ]
    top = [f for f in REPOSITORY.glob("*") if f.suffix in (".md", ".toml") or f.name == "Makefile"]
    found = [
        f"{file.relative_to(REPOSITORY)}:{one.line}: {one.what}"
        for file in [*files, *top]
        for one in secrets(file.read_text("utf-8", errors="replace"))
    ]
    assert found == []


def test_no_exception_outlives_its_reason() -> None:
    """What is allowed above is still done there."""
    done = {
        (str(file.relative_to(REPOSITORY)), finding.rule)
        for file in modules(REPOSITORY / "assetcore")
        for finding in findings(file.read_text("utf-8"), project=False)
    }
    assert set(ALLOWED) <= done
