"""Collectors: who else is told where the time of a run went? The only door to LMNR and OpenTelemetry.

LMNR where there is a key, and any collector that takes OTLP where there is an address. Both libraries are imported when the first
spans are sent, in a thread: what needs neither pays for neither. Someone who does not listen costs a run a few seconds at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from assetcore.errors import ServiceError
from assetcore.settings import Settings
from assetcore.telemetry import Sink, Span

__all__ = ["collector_for"]

SECONDS = 2
NAMES = {
    "model": "gen_ai.request.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read_input_tokens",
    "tokens": "llm.usage.total_tokens",
    "usd": "gen_ai.usage.cost",
}
"""What OpenTelemetry and LMNR call our attributes; all others are called assetcore.NAME."""


def collector_for(settings: Settings, project: str, run: str) -> Sink | None:
    """Where the settings want the spans of a run besides the database, or None."""
    key, endpoint = settings.lmnr_project_api_key, settings.otlp_endpoint
    if key is None and endpoint is None:
        return None
    collector = Collector(
        project, run, key.get_secret_value() if key is not None else None, settings.lmnr_base_url, endpoint
    )
    return collector.send


@dataclass(slots=True)
class Collector:
    """Sends the spans of one run."""

    project: str
    run: str
    key: str | None = field(repr=False)
    base_url: str | None
    endpoint: str | None
    _exporters: list[Any] | None = None

    async def send(self, spans: Sequence[Span]) -> None:
        """Send spans. Raises ServiceError when they are not taken."""
        await asyncio.to_thread(self._send, spans)

    def _send(self, spans: Sequence[Span]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult  # heavy, and only for those who have a collector

        if self._exporters is None:
            self._exporters = self._open()
        told = [self._told(span) for span in spans]
        results = [exporter.export(told) for exporter in self._exporters]
        if any(result is not SpanExportResult.SUCCESS for result in results):
            raise ServiceError(f"{self.base_url or self.endpoint or 'LMNR'} does not take the spans of run {self.run}.")

    def _open(self) -> list[Any]:
        exporters: list[Any] = []
        if self.key is not None:
            from lmnr.opentelemetry_lib.tracing.exporter import (
                LaminarSpanExporter,  # seconds where litellm is installed
            )

            exporters.append(
                LaminarSpanExporter(self.base_url, api_key=self.key, timeout_seconds=SECONDS, force_http=True)
            )
        if self.endpoint is not None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # likewise

            address = self.endpoint if self.endpoint.endswith("/v1/traces") else f"{self.endpoint}/v1/traces"
            exporters.append(OTLPSpanExporter(endpoint=address, timeout=SECONDS))
        return exporters

    def _told(self, span: Span) -> Any:
        """A span in the words of OpenTelemetry."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        def context(number: int) -> SpanContext:
            trace, own = _number(16, self.run), _number(8, self.run, str(number))
            return SpanContext(trace, own, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        attributes: dict[str, Any] = {
            "assetcore.kind": span.kind,
            "lmnr.span.type": "LLM" if span.kind == "llm" else "DEFAULT",
        }
        for key, value in span.attributes.items():
            plain = value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)
            attributes[NAMES.get(key, f"assetcore.{key}")] = plain
        return ReadableSpan(
            span.name,
            context=context(span.id),
            parent=None if span.parent is None else context(span.parent),
            resource=Resource.create({"service.name": "assetcore", "assetcore.project": self.project}),
            attributes=attributes,
            start_time=int(span.started * 1e9),
            end_time=int((span.started + span.seconds) * 1e9),
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
        )


def _number(size: int, *parts: str) -> int:
    """The same number for the same parts on every machine: a run's spans find each other, whoever sends them."""
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:size], "big")
