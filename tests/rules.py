"""The house rules as a linter: what does a module do that nobody in this house does?

Seed 0 names the anti-patterns; each is a rule below, found in the syntax tree, so that the reason stands beside the line that breaks
it. What ruff and the import walls hold already (unused names, layers) is not looked for again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROVIDERS = {
    "openai", "anthropic", "litellm", "cohere", "mistralai", "ollama", "groq", "together", "google.generativeai", "google.genai",
}  # fmt: skip
VECTOR_STORES = {"chromadb", "faiss", "qdrant_client", "weaviate", "pinecone", "lancedb", "pymilvus", "milvus", "annoy"}
PROVIDER_HOSTS = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "api.mistral.ai",
    "api.cohere",
)
SQL = ("select ", "insert ", "update ", "delete ", "create ", "drop ", "alter ", "truncate ", "with ")
EXECUTES = {"execute", "executemany", "exec_driver_sql", "fetch", "fetchrow", "fetchval", "scalar", "scalars"}
BLOCKS = {
    "open", "input", "time.sleep", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "os.listdir", "os.system", "shutil.copyfile", "shutil.copytree", "shutil.rmtree", "socket.create_connection", "urllib.request.urlopen",
}  # fmt: skip
BLOCKING_LIBRARIES = {"requests", "psycopg2", "boto3", "pymysql", "sqlite3"}
BLOCKING_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes"}
MUTATES = {"append", "add", "extend", "insert", "update", "setdefault", "pop", "remove", "clear", "discard", "popitem"}
SECRET = re.compile(
    r"\b(?:sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|gh[opsu]_\w{36}|xox[abp]-[\w-]{20,})|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
"""What keys look like: of OpenAI and Anthropic, AWS, GitHub, Slack, and any private one."""
LOOSE = {"bytes", "bytearray", "DataFrame", "LazyFrame", "ndarray", "Table"}


class Finding(NamedTuple):
    """A rule that is broken, and where."""

    rule: str
    line: int
    what: str


def findings(source: str, *, project: bool) -> list[Finding]:
    """What breaks a rule in a module; some rules are for projects alone, which only declare."""
    tree = ast.parse(source)
    found = [
        *_imports(tree, project),
        *_calls(tree),
        *_registries(tree),
        *_waits(tree),
        *_parameters(tree),
        *_columns(tree, project),
        *secrets(source),
    ]
    return sorted(found, key=lambda finding: finding.line)


def modules(folder: Path) -> Iterator[Path]:
    """The Python files below a folder."""
    yield from sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def secrets(text: str) -> Iterator[Finding]:
    """Keys that stand in a file of any kind."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := SECRET.search(line):
            yield Finding(
                "secret", number, f"{found[0][:6]}…: a secret belongs into .env, the environment or a Secret block"
            )


def _imports(tree: ast.Module, project: bool) -> Iterator[Finding]:
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            top = name.partition(".")[0]
            if name in PROVIDERS or top in PROVIDERS:
                yield Finding("provider", node.lineno, f"{name}: models are asked through assetcore.llm")
            if top in VECTOR_STORES:
                yield Finding("vector-store", node.lineno, f"{name}: vectors lie in pgvector")
            if project and top == "prefect":
                yield Finding(
                    "prefect",
                    node.lineno,
                    f"{name}: @pipeline_task and @pipeline_flow, which never retry by themselves",
                )
            if project and name.startswith("assetcore.notify"):
                yield Finding("notify", node.lineno, f"{name}: failures are told by the run, not by tasks")


def _calls(tree: ast.Module) -> Iterator[Finding]:
    texts = {"sa.text", "sqlalchemy.text"} | {
        a.asname or a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("sqlalchemy")
        for a in n.names
        if a.name == "text"
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and any(h in node.value for h in PROVIDER_HOSTS)
        ):
            yield Finding("provider", node.lineno, "a provider's address: models are asked through the gateway")
        if not isinstance(node, ast.Call):
            continue
        called = _name(node.func)
        last = called.rpartition(".")[2]
        first = node.args[0] if node.args else None
        if called == "print" or called in ("sys.stdout.write", "pprint.pprint"):
            yield Finding("print", node.lineno, "print: get_pipeline_logger")
        if called in ("logging.getLogger", "logging.info", "logging.warning", "logging.error", "logging.basicConfig"):
            yield Finding("logging", node.lineno, f"{called}: get_pipeline_logger")
        if called in texts and first is not None:
            yield Finding("sql", node.lineno, "text(): Core and ORM expressions")
        if last in EXECUTES and "." in called and _starts(first, SQL):
            yield Finding("sql", node.lineno, "a statement as a string: Core and ORM expressions")
        if called in ("importlib.import_module", "__import__", "eval", "exec"):
            yield Finding("dynamic-import", node.lineno, f"{called}: import statements")
        if (
            last in ("write", "read", "open_input")
            and "bucket" in called.lower()
            and isinstance(first, ast.Constant | ast.JoinedStr)
        ):
            yield Finding("key", node.lineno, "a key made by hand: object_key(...)")
        if last == "Key" and isinstance(first, ast.JoinedStr):
            yield Finding("key", node.lineno, "a key made by hand: object_key(...)")
        if "pushover" in called.lower() and last in ("post", "send"):
            yield Finding("notify", node.lineno, "a message by hand: failures are told by the run")
        if last in ("task", "flow") and any(k.arg == "retries" and getattr(k.value, "value", 0) for k in node.keywords):
            yield Finding("retries", node.lineno, "retries by themselves: a named RetryPolicy, and idempotent=True")


def _registries(tree: ast.Module) -> Iterator[Finding]:
    """Containers of a module that its functions change: state that every importer shares."""
    containers: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_container(node.value):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    containers[target.id] = node.lineno
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]:
        local = {a.arg for a in function.args.args} | {
            t.id for n in ast.walk(function) if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield Finding("global", node.lineno, f"global {', '.join(node.names)}: pass it on")
            changed = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATES:
                changed = node.func.value
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                changed = node.value
            if isinstance(changed, ast.Name) and changed.id in containers and changed.id not in local:
                yield Finding(
                    "global", containers[changed.id], f"{changed.id} is changed by {function.name}: pass it on"
                )


def _waits(tree: ast.Module) -> Iterator[Finding]:
    """What blocks the event loop."""
    waiting: list[ast.AST] = [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef)]
    for function in waiting:
        for node in _own(function):
            if not isinstance(node, ast.Call):
                continue
            called = _name(node.func)
            last, top = called.rpartition(".")[2], called.partition(".")[0]
            if called in BLOCKS or top in BLOCKING_LIBRARIES or (last in BLOCKING_METHODS and "." in called):
                yield Finding("blocks", node.lineno, f"{called} in async code: asyncio.to_thread, or an async client")


def _parameters(tree: ast.Module) -> Iterator[Finding]:
    """Flows and tasks that take what Prefect would have to keep."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = {_name(d.func if isinstance(d, ast.Call) else d).rpartition(".")[2] for d in node.decorator_list}
        if decorators & {"flow", "task", "pipeline_flow", "pipeline_task"}:
            for argument in node.args.args:
                used = {_name(n).rpartition(".")[2] for n in ast.walk(argument.annotation or ast.Pass())}
                if used & LOOSE:
                    yield Finding("parameters", argument.lineno, f"{argument.arg}: pass documents, or a key")


def _columns(tree: ast.Module, project: bool) -> Iterator[Finding]:
    """Tables of a project that hold what belongs into the store."""
    for node in ast.walk(tree):
        if (
            project
            and isinstance(node, ast.Call)
            and _name(node.func).rpartition(".")[2] in ("Column", "mapped_column")
        ):
            used = {_name(n).rpartition(".")[2] for a in node.args for n in ast.walk(a)}
            if used & {"JSON", "JSONB", "LargeBinary", "BYTEA"}:
                yield Finding("large-column", node.lineno, "bytes and JSON lie in the store, Postgres holds where")


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without functions inside it, which run elsewhere."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _is_container(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set):
        return True
    return isinstance(value, ast.Call) and _name(value.func).rpartition(".")[2] in (
        "list", "dict", "set", "defaultdict", "OrderedDict", "deque", "WeakValueDictionary",
    )  # fmt: skip


def _starts(value: ast.expr | None, words: tuple[str, ...]) -> bool:
    if isinstance(value, ast.JoinedStr) and value.values:
        value = value.values[0] if isinstance(value.values[0], ast.Constant) else None
    return (
        isinstance(value, ast.Constant)
        and isinstance(value.value, str)
        and value.value.lstrip().lower().startswith(words)
    )


def _name(node: ast.AST) -> str:
    """`a.b.c` as text."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
