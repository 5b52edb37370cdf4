"""Provenance: how are those outside told what was made of what?

While a run goes on each of its assets is an OpenLineage run: START, then COMPLETE, FAIL, or ABORT where something was left for another
run, to an HTTP endpoint or a file, if the setting `openlineage` names one. Whoever listens has no say: an endpoint that fails is told
once, and the run goes on.
What is exported can take a statement with it (in-toto, SLSA provenance v1): which files, by which code, out of which documents.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote, urlsplit

from assetcore import explain
from assetcore.assets import Source
from assetcore.execution import Run
from assetcore.graph import AnyAsset
from assetcore.lineage import environments
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.history import Making, made_by
from assetcore.look import Exported
from assetcore.project import Project
from assetcore.refs import format_ref
from assetcore.results import Event
from assetcore.storage.formats import columns_of

__all__ = ["STATEMENT", "Sender", "run_event", "statement", "telling", "write_statement"]

OPENLINEAGE = "https://openlineage.io/spec"
STATEMENT = "provenance.intoto.json"
"""The file that an export with provenance adds."""
SECONDS = 2.0
"""An endpoint that takes longer has failed."""


def run_event(
    kind: str, at: datetime, project: Project, run: str, asset: AnyAsset, *, error: str | None = None
) -> dict[str, Any]:
    """One event of OpenLineage: `START`, `COMPLETE`, `FAIL` or `ABORT` of an asset in a run. Lineage is by document, not by column."""
    producer = f"urn:assetcore:{version('assetcore')}"

    def facet(name: str, version: str = "1-0-1", **facts: Any) -> dict[str, Any]:
        return {
            "_producer": producer,
            "_schemaURL": f"{OPENLINEAGE}/facets/{version}/{name}.json#/$defs/{name}",
            **facts,
        }

    def declared(one: AnyAsset, of: str) -> dict[str, Any]:
        """What an asset says of itself, as facets of a `Dataset` or a `Job`. The standard has no facets for kinds and sensitivity: tags."""
        facets: dict[str, Any] = {}
        if one.description:
            facets["documentation"] = facet(f"Documentation{of}Facet", description=one.description)
        if one.options.owner:
            facets["ownership"] = facet(f"Ownership{of}Facet", owners=[{"name": one.options.owner}])
        told = [(tag, "true") for tag in one.options.tags] + [("kind", kind) for kind in one.options.kinds]
        if sensitivity := project.graph.sensitivity[one.name]:
            told.append(("sensitivity", sensitivity))
        if told:
            tags = [{"key": key, "value": value, "source": "ASSETCORE"} for key, value in told]
            facets["tags"] = facet(f"Tags{of}Facet", "2-0-3", tags=tags)
        return facets

    def dataset(one: AnyAsset) -> dict[str, Any]:
        typed = [(column.name, str(column.type)) for column in columns_of(one.output.document_type)]
        columns = [("name", "string"), ("media_type", "string"), ("content", "bytes"), *typed]
        fields = [{"name": name, "type": kind} for name, kind in columns]
        facets = {"schema": facet("SchemaDatasetFacet", fields=fields), **declared(one, "Dataset")}
        return {"namespace": project.name, "name": f"{project.environment}/{one.name}", "facets": facets}

    job = declared(asset, "Job")
    if not isinstance(asset, Source):
        parts = project.fingerprint(asset.name).parts
        if parts:
            job["sourceCode"] = facet(
                "SourceCodeJobFacet", language="python", sourceCode="\n\n".join(p.source for p in parts)
            )
    failed = (
        {"errorMessage": facet("ErrorMessageRunFacet", message=error, programmingLanguage="python")} if error else {}
    )
    return {
        "eventType": kind, "eventTime": at.isoformat(), "producer": producer,
        "schemaURL": f"{OPENLINEAGE}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"assetcore:{run}:{asset.name}")), "facets": failed},
        "job": {"namespace": project.name, "name": asset.name, "facets": job},
        "inputs": [dataset(project.graph.assets[name]) for name in project.graph.upstream(asset.name)], "outputs": [dataset(asset)],
    }  # fmt: skip


class Sender:
    """Sends events one after the other, in the background, to an HTTP endpoint or to the end of a file."""

    def __init__(self, address: str) -> None:
        self.address = unquote(urlsplit(address).path) if address.startswith("file://") else address
        self.trouble: str | None = None
        self._waiting: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

    def send(self, event: Mapping[str, Any]) -> None:
        """Send when there is time."""
        self._waiting.put_nowait(event)

    def end(self) -> None:
        """No more will come."""
        self._waiting.put_nowait(None)

    async def work(self) -> None:
        """Send until the end; after the first failure nothing more is tried."""
        while (event := await self._waiting.get()) is not None:
            if self.trouble is None:
                try:
                    await (self._post(event) if "://" in self.address else asyncio.to_thread(self._write, event))
                except Exception as error:  # whatever it is: who listens has no say
                    self.trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    async def _post(self, event: Mapping[str, Any]) -> None:
        import httpx  # 0.1 s, for those who listen

        async with httpx.AsyncClient(timeout=SECONDS) as client:
            (await client.post(self.address, json=event)).raise_for_status()

    def _write(self, event: Mapping[str, Any]) -> None:
        with open(self.address, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


@asynccontextmanager
async def telling(run: Run) -> AsyncIterator[None]:
    """While a run goes on, tell whoever the setting `openlineage` names."""
    address = run.project.settings.openlineage
    if address is None:
        yield
        return
    sender, say, project = Sender(address), run.say, run.project
    work = asyncio.create_task(sender.work())

    begun: dict[str, None] = {}

    def tell(kind: str, name: str, error: str | None = None) -> None:
        sender.send(run_event(kind, datetime.now(UTC), project, run.id, project.graph.assets[name], error=error))

    def hear(event: Event) -> None:
        say(event)
        if event.kind == "asset-started":
            begun[event.asset] = None
            tell("START", event.asset)
        elif event.kind == "asset-finished":
            begun.pop(event.asset, None)
            error = next((f.error for f in run.failures if f.asset == event.asset), None)
            result = run.results[event.asset]
            incomplete = bool(result.skipped or result.left)
            tell("FAIL" if error is not None else "ABORT" if incomplete else "COMPLETE", event.asset, error)

    run.say = hear
    try:
        yield
    finally:
        run.say = say
        for name in begun:
            tell("ABORT", name)
        sender.end()
        await asyncio.wait([work], timeout=2 * SECONDS)
        work.cancel()
        if sender.trouble:
            say(Event("message", text=f"OpenLineage events did not reach {address}: {sender.trouble}"))


async def write_statement(project: Project, exported: Exported) -> str:
    """Write the in-toto statement with SLSA provenance v1 of what was exported, beside it; returns its name."""
    dependencies: set[tuple[str, bytes]] = set()
    made: list[Making] = []
    async with project.engine.connect() as connection:
        await at_one_moment(connection)
        names = {i: name for i, (name, _) in (await environments.registered(connection, project.id)).items()}
        for documents in exported.documents.values():
            made += await made_by(connection, project.environment_id, documents)
            for one in await explain.origins(project, connection, documents):
                asset = project.graph.assets.get(names[one.asset])
                if asset is None or isinstance(asset, Source):  # what an asset makes of nothing is no dependency
                    dependencies.add((format_ref(names[one.asset], one.unit), one.sha256))
    text = await asyncio.to_thread(
        lambda: json.dumps(statement(project, exported, names, sorted(dependencies), made), indent=1)
    )
    await asyncio.to_thread((exported.directory / STATEMENT).write_text, text, encoding="utf-8")
    return STATEMENT


def statement(
    project: Project, exported: Exported, names: Mapping[int, str], sources: Sequence[tuple[str, bytes]], made: Sequence[Making]
) -> dict[str, Any]:  # fmt: skip
    """What is said of exported files: the hash of each, the documents of sources that they were made of, with which code, by which runs."""
    subjects = [
        {"name": file, "digest": {"sha256": hashlib.sha256((exported.directory / file).read_bytes()).hexdigest()}}
        for file in exported.files
    ]
    code: dict[str, list[str]] = {}
    for one in made:
        if not isinstance(project.graph.assets.get(names[one.asset]), Source):
            code.setdefault(names[one.asset], []).append(one.definition.hex())
    dependencies = [{"name": name, "digest": {"sha256": digest.hex()}} for name, digest in sources]
    return {
        "_type": "https://in-toto.io/Statement/v1", "subject": subjects, "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:assetcore:materialize:v1",
                "externalParameters": {"project": project.name, "environment": project.environment},
                "internalParameters": {"definitions": {name: sorted(set(digests)) for name, digests in code.items()}},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": f"urn:assetcore:{version('assetcore')}"},
                "metadata": {
                    "invocationId": ",".join(dict.fromkeys(one.run for one in sorted(made, key=lambda one: one.at))),
                    "finishedOn": max(one.at for one in made).isoformat(),
                },
            },
        },
    }  # fmt: skip
