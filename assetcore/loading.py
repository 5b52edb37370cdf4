"""Loading: where are a user's declarations, and what do they say?

A project is a package below `projects/`, or one that pyproject.toml names. Loading imports it and builds its graph, and reads the
config of its assets; no service is needed for that, and nothing heavy is imported.
"""

from __future__ import annotations

import builtins
import difflib
import functools
import importlib
import pkgutil
import sys
import sysconfig
import tomllib
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from assetcore.assets import Asset, Source
from assetcore.checks import Check
from assetcore.errors import AssetcoreError, DeclarationError, ProjectError, UsageError
from assetcore.fingerprint import Fingerprint, Importer, fingerprint
from assetcore.fingerprint.origins import is_editable
from assetcore.graph import Graph
from assetcore.notation import parse_yaml
from assetcore.pipelines import PipelineFlow
from assetcore.refs import called

__all__ = [
    "configuration",
    "find_root",
    "fingerprint_of",
    "flows",
    "load",
    "package_of",
    "project_names",
    "user_packages",
]


def find_root(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds `projects/` or names projects in its pyproject.toml."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "projects").is_dir() or _named_in_pyproject(folder):
            return folder
    raise ProjectError(
        f"There is no project here: neither {start} nor a folder above it has projects/.",
        hint="Start one with: aipctl new project NAME, or name packages in pyproject.toml: [tool.assetcore] projects = [...]",
    )


def project_names(root: Path) -> list[str]:
    """The packages under `projects/`, and those that pyproject.toml names."""
    folder = root / "projects"
    found = [p.name for p in sorted(folder.iterdir()) if (p / "__init__.py").is_file()] if folder.is_dir() else []
    return [*found, *_named_in_pyproject(root)]


def package_of(root: Path, project: str) -> str:
    """The name to load a project by, which lineage and workers know by its last part."""
    return next((name for name in project_names(root) if name.rpartition(".")[2] == project), project)


def load(root: Path, name: str, require: Collection[str] = ()) -> Graph:
    """Import a project and collect the assets and checks in the namespaces of its modules.

    Modules that are loaded already from the same place are imported anew, so that a long-lived process sees edits.
    Raises ProjectError when there is no such project or a module cannot be imported (file, line and reason), DeclarationError
    for mistakes in the declarations, and for assets that do not say what the setting `require` asks for.
    """
    known = project_names(root)
    if name not in known and (root / "projects" / name).is_dir():
        raise ProjectError(
            f"{root / 'projects' / name} is no package: it has no __init__.py.", hint="Create one; it may be empty."
        )
    if name not in known:
        raise ProjectError(
            f"There is no project {name!r} in {root}.",
            hint=f"There is: {', '.join(known) or 'none; start one with: aipctl new project'}.",
        )
    called = name.rpartition(".")[2]
    if len(twins := [other for other in known if other.rpartition(".")[2] == called]) > 1:
        raise ProjectError(
            f"{' and '.join(twins)} are both the project {called}: lineage knows a project by its last part.",
            hint="Rename one of the packages.",
        )
    package = name if name in _named_in_pyproject(root) else f"projects.{name}"
    _forget(package)
    if sys.path[:1] != [str(root)]:  # of two roots in one process, the one that is asked comes first
        sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    importlib.invalidate_caches()
    before, finder = frozenset(sys.modules), _Finder(root)
    sys.meta_path.insert(0, finder)
    try:
        modules = list(_import_all(package, root))
    finally:
        sys.meta_path.remove(finder)
        _remember(before, root)
    declared = {id(v): v for module in modules for v in vars(module).values() if isinstance(v, Asset)}
    if not declared:
        raise ProjectError(
            f"The project {name} declares no asset.", hint="Put @asset on a function in one of its modules."
        )
    checks = {id(v): v for module in modules for v in vars(module).values() if isinstance(v, Check)}
    graph = Graph(name.rpartition(".")[2], declared.values(), checks.values())
    graph.require(require)
    return graph


def flows(root: Path, name: str) -> dict[str, PipelineFlow[Any]]:
    """The flows in the namespaces of a project's modules, by name. Raises as `load`, and DeclarationError for two of one name."""
    load(root, name)
    package = name if name in _named_in_pyproject(root) else f"projects.{name}"
    found: dict[str, PipelineFlow[Any]] = {}
    for module in [m for n, m in list(sys.modules.items()) if n == package or n.startswith(f"{package}.")]:
        for value in vars(module).values():
            if isinstance(value, PipelineFlow) and found.setdefault(value.name, value) is not value:
                raise DeclarationError(
                    f"{name} has two flows named {value.name}.", hint="Rename one: @pipeline_flow(name=...)"
                )
    return found


def configuration(
    graph: Graph, root: Path, overrides: Sequence[str] = (), published: Mapping[str, Any] | None = None
) -> dict[str, dict[str, BaseModel]]:
    """The config of every asset that takes some.

    First the defaults, then the project's `config.yaml` and `config/ASSET.yaml`, then what is `published` in Prefect's variables by
    lowercase names of assets, then `asset.field=value`. Everywhere, an asset with one config parameter has its fields directly
    below its name; with several, below the parameter's name. Raises DeclarationError or UsageError for what does not fit.
    """
    path = _package_folder(graph, root) / "config.yaml"
    values: dict[str, dict[str, Any]] = _read_config(path) if path.is_file() else {}
    takers = [n for n, a in graph.assets.items() if a.configs]
    for name in values:
        if name not in takers:
            raise DeclarationError(
                f"{path}: {name!r} is not an asset that takes config.",
                hint=f"Those that do: {', '.join(takers) or 'none'}.",
            )
    _refuse_misnamed(path.with_suffix(""), graph, takers)
    files: dict[str, Path] = {}
    for file in sorted(one for one in path.with_suffix("").glob("*.yaml") if one.is_file()):
        if files.setdefault(called(file.stem), file) is not file:
            raise DeclarationError(
                f"{path.with_suffix('')} has two files {called(file.stem)}.yaml, spelled in other bytes."
            )
    for name in takers:
        given = _read_config(files[name], {name}) if name in files else {}
        for more in (given, (published or {}).get(name.lower(), {})):
            if not isinstance(more, Mapping):
                raise DeclarationError(
                    f"The Prefect variable {graph.project}_{name.lower()} is {more!r:.80}, and no table of values.",
                    hint="Write it with: aipctl blocks init",
                )
            values[name] = {**(values.get(name) or {}), **more}
    for text in overrides:
        _override(values, text, graph)
    return {
        name: _configured(asset, values.get(name) or {}, path, overrides)
        for name, asset in graph.assets.items()
        if asset.configs
    }


def _configured(
    asset: Asset[..., Any], given: Mapping[str, Any], path: Path, overrides: Sequence[str]
) -> dict[str, BaseModel]:
    """The config of one asset, by parameter. What does not fit is a UsageError where `overrides` gave it, a DeclarationError otherwise."""
    by_parameter = {asset.configs[0].parameter: given} if len(asset.configs) == 1 else given
    parameters = [config.parameter for config in asset.configs]
    for parameter, values in by_parameter.items():
        if parameter not in parameters or not isinstance(values, dict | None):
            raise _misfit(
                f"the config of {asset.name} has {parameter}: {values!r:.80}, but {asset.name} takes {', '.join(parameters)}.",
                _set_by(overrides, asset.name, parameter),
                hint=f"Write the fields below the parameter, in {path} or with --set {asset.name}.PARAMETER.FIELD=VALUE.",
            )
    found: dict[str, BaseModel] = {}
    for config in asset.configs:
        try:
            found[config.parameter] = config.model.model_validate(
                _merged(config.default, by_parameter.get(config.parameter) or {}),
                extra="forbid",
                by_alias=True,
                by_name=True,
            )
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join([asset.name, *map(str, problem["loc"])])
            known = ", ".join(config.model.model_fields)
            among = [config.parameter] if len(asset.configs) > 1 else []
            raise _misfit(
                f"the config of {asset.name} does not fit {config.model.__name__}: {where}: {problem['msg']}, "
                f"got {problem.get('input')!r:.80}.",
                _set_by(overrides, asset.name, *among, *map(str, problem["loc"])) if problem["loc"] else None,
                hint=f"Its fields are {known}; set them in {path} or with --set {asset.name}.FIELD=VALUE.",
            ) from None
    return found


def _set_by(overrides: Sequence[str], *where: str) -> str | None:
    """Which `asset.field=value` gave the value here, or something of it, or what it is part of."""
    paths = {text: called(text.partition("=")[0].strip()).split(".") for text in overrides}
    return next((text for text, path in paths.items() if all(a == b for a, b in zip(path, where, strict=False))), None)


def _misfit(sentence: str, said: str | None, hint: str) -> AssetcoreError:
    """The error for config that does not fit: of the call that said it, or of the project."""
    if said is not None:
        return UsageError(f"--set {said}: {sentence}", hint=hint)
    return DeclarationError(sentence[0].upper() + sentence[1:], hint=hint)


def _merged(default: BaseModel | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over the default: models inside are merged field by field, any other value is replaced as a whole."""
    values: dict[str, Any] = {} if default is None else {n: getattr(default, n) for n in type(default).model_fields}
    for name, value in given.items():
        before = values.get(name)
        values[name] = _merged(before, value) if isinstance(before, BaseModel) and isinstance(value, dict) else value
    return values


def _package_folder(graph: Graph, root: Path) -> Path:
    """The folder of a project's package."""
    for name in _named_in_pyproject(root):
        module = sys.modules.get(name)
        if name.rpartition(".")[2] == graph.project and module is not None and module.__file__ is not None:
            return Path(module.__file__).parent
    return root / "projects" / graph.project


@functools.lru_cache(maxsize=4)
def user_packages(graph: Graph) -> frozenset[str]:
    """The top-level packages that hold the users' own code: those in which the assets are declared."""
    modules = [getattr(a.function, "__module__", "") for a in graph.assets.values() if not isinstance(a, Source)]
    return frozenset(module.partition(".")[0] for module in modules if module)


def fingerprint_of(graph: Graph, name: str) -> Fingerprint:
    """The fingerprint of the code of an asset, or of a check (`asset.check`), with that of the classes of what it is given."""
    made_by = graph.functions[name]
    packages, version = user_packages(graph), None
    if isinstance(made_by, Check):
        given: list[type] = [made_by.asset.output.type]
        packages |= {made_by.function.__module__.partition(".")[0]}
    else:
        given = [d.upstream.output.type for d in made_by.dependencies] + [c.model for c in made_by.configs]
        version = made_by.options.version
    return fingerprint(
        made_by.function,
        user_packages=packages,
        version=version,
        types=given,
    )


def _named_in_pyproject(root: Path) -> tuple[str, ...]:
    path = root / "pyproject.toml"
    try:
        state = path.stat()
    except OSError:
        return ()
    return _projects_of(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _projects_of(path: Path, *state: int) -> tuple[str, ...]:
    try:
        table: Any = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} cannot be read: {error}.") from None
    for key in ("tool", "assetcore"):
        if not isinstance(table := table.get(key, {}), dict):
            raise ProjectError(f"{path}: {key} = {table!r:.80} is not a table.", hint="[tool.assetcore]")
    projects = table.get("projects", [])
    if not isinstance(projects, list) or not all(isinstance(p, str) and p for p in projects):
        raise ProjectError(
            f"{path}: [tool.assetcore] has projects = {projects!r}, which is not a list of packages.",
            hint='projects = ["package", "another.package"]',
        )
    return tuple(projects)


_loaded: set[str] = set()
"""Modules of the user's that loading a project has imported: they are forgotten before the next time."""


_STANDARD = sysconfig.get_path("stdlib")
"""Where the standard library is: whose its modules are needs no look at what is installed."""


def _forget(package: str) -> None:
    """Let a project's modules, and what they imported of the user's own, be imported anew."""
    top = package.partition(".")[0]
    for name in [n for n in sys.modules if n in _loaded or n in (package, top) or n.startswith(f"{package}.")]:
        del sys.modules[name]
    _loaded.clear()


def _remember(before: frozenset[str], root: Path) -> None:
    """Note which of the user's modules are new since."""
    for name in frozenset(sys.modules) - before:
        module = sys.modules.get(name)  # none: another thread's, where it could not be imported
        if _is_own(name, getattr(module, "__file__", None) or "", root):
            _loaded.add(name)


def _is_own(name: str, file: str, root: Path) -> bool:
    """Whether a module is the user's: from below the root or installed as editable, not installed there or assetcore's own."""
    top = name.partition(".")[0]
    if not file or "site-packages" in file or top == "assetcore":
        return False
    return file.startswith(f"{root}/") or (not file.startswith(_STANDARD) and is_editable(top))


class _Finder:
    """Finds modules as Python does; the user's own are imported so that it is known what they were imported from."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is None or isinstance(finder, _Finder):  # another thread loads, too
                continue
            if (spec := find(name, path, target)) is not None:
                if type(spec.loader) is SourceFileLoader and _is_own(name, spec.loader.path, self.root):
                    spec.loader = Importer(spec.loader.name, spec.loader.path)
                return spec
        return None


def _import_all(package: str, root: Path) -> Iterator[ModuleType]:
    """The package and all its modules, but for tests, which may need what is not installed where the project runs."""
    module = _import(package, root)
    yield module
    for info in pkgutil.iter_modules(getattr(module, "__path__", []), f"{package}."):
        if not info.name.rpartition(".")[2].startswith(("__", "test_")):
            yield from _import_all(info.name, root)


def _import(name: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (AssetcoreError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if (
            isinstance(error, SyntaxError) and Path(error.filename or "").is_file()
        ):  # else of what the module itself reads
            raise ProjectError(f"{error.filename}:{error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(root))]
        own = [f for f in frames if "site-packages" not in f.filename] or frames
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else name
        hint = f"The line is: {own[-1].line}" if own else None
        if isinstance(error, ImportError):
            hint = "Install what it needs, or correct the name."
        elif near := _nearest(error):
            hint = f"Did you mean {near}?"
        raise ProjectError(
            f"{where}: {name} cannot be imported: {type(error).__name__}: {_text(error)}.", hint=hint
        ) from error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # it is the user's, and says nothing then
        return "it cannot say what is wrong"


def _nearest(error: BaseException) -> str | None:
    """The name that was meant where one is not defined."""
    trace = error.__traceback__
    if not isinstance(error, NameError) or trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    known = [*trace.tb_frame.f_locals, *trace.tb_frame.f_globals, *dir(builtins)]
    return next(iter(difflib.get_close_matches(error.name or "", known, 1)), None)


def _read_config(path: Path, of: Collection[str] = ()) -> dict[str, Any]:
    """The tables of a file of configuration, by asset; or where it is of one asset, the values of that."""
    try:
        values = parse_yaml(path.read_text("utf-8")) or {}
    except ValueError as error:
        raise DeclarationError(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict) or not (of or all(isinstance(v, dict | None) for v in values.values())):
        raise DeclarationError(
            f"{path} is not a table of assets with a table of values each.", hint="chunks:\n    size: 800"
        )
    if of:
        return values
    found = {called(n) if isinstance(n, str) else n: given for n, given in values.items()}
    if len(found) < len(values):
        raise DeclarationError(f"{path} has an asset twice, spelled in other bytes: {', '.join(map(str, values))}.")
    return found


def _refuse_misnamed(folder: Path, graph: Graph, takers: Sequence[str]) -> None:
    """Raise DeclarationError for a file that is meant for an asset, by its name, and is not read for any.

    What lies there under a name of its own is a variable that `aipctl blocks init` publishes, and no config.
    """
    meant = {name.lower(): name for name in takers}
    for file in sorted(folder.glob("*.y*ml")):
        stem = called(file.stem)
        if file.suffix == ".yaml" and stem in takers:
            continue
        near = difflib.get_close_matches(stem.lower(), meant, n=1, cutoff=0.8)
        if near or stem in graph.assets:
            hint = f"Did you mean {meant[near[0]]}.yaml?" if near else f"Those that do: {', '.join(takers) or 'none'}."
            raise DeclarationError(f"{file} is not the config of an asset that takes some.", hint=hint)


def _override(values: dict[str, dict[str, Any]], text: str, graph: Graph) -> None:
    path, separator, value = text.partition("=")
    parts = path.strip().split(".")
    parts[0] = called(parts[0])
    if not separator or len(parts) < 2 or not all(parts):
        raise UsageError(f"{text!r} is not a config value.", hint="Write --set asset.field=value.")
    if parts[0] not in graph.assets:
        raise UsageError(f"--set {text}: there is no asset {parts[0]!r}.", hint=f"There is: {', '.join(graph.assets)}.")
    if not graph.assets[parts[0]].configs:
        takers = ", ".join(name for name, asset in graph.assets.items() if asset.configs)
        raise UsageError(f"--set {text}: {parts[0]} takes no config.", hint=f"Those that do: {takers or 'none'}.")
    try:
        read = parse_yaml(value)
    except ValueError:
        raise UsageError(f"--set {text}: {value!r:.200} cannot be read.", hint="Quote it as in YAML.") from None
    place: dict[str, Any] = values
    for part in parts[:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[parts[-1]] = read
