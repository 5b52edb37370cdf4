"""Generator: which documents does a user's async generator yield?"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document, field_digests
from assetcore.errors import SourceError
from assetcore.sources.observed import Rows

__all__ = ["Generator"]


@dataclass(frozen=True, slots=True)
class Generator:
    """A source whose documents an async generator function without parameters yields."""

    function: Callable[[], AsyncGenerator[Any, None]]

    async def observe(
        self, source: Source, root: Path, known: pl.DataFrame | None, *, rehash: bool = False
    ) -> pl.DataFrame:
        """Run the generator and hash what it yields; nothing of it is kept."""
        rows = Rows()
        async with aclosing(self._yielded(source)) as yielded:
            async for document in yielded:
                try:
                    fields = field_digests(document.field_values())
                except TypeError as error:
                    raise SourceError(
                        f"{source.name} yielded {document!r} with a field of which no digest can be taken: {error}.",
                        hint="Use fields of text, numbers, dates, lists, dicts or pydantic models.",
                    ) from None
                rows.add(document.name, len(document.content), document.media_type, document.sha256, fields)
        return rows.frame(source, None if rehash else known)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """Run the generator again, as far as needed, and hand over the wanted documents in its order."""
        wanted = set(names)
        if not wanted:
            return
        async with aclosing(self._yielded(source)) as yielded:
            async for document in yielded:
                if document.name in wanted:
                    wanted.discard(document.name)
                    yield document
                    if not wanted:
                        return
        shown = ", ".join(sorted(wanted)[:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
        raise SourceError(
            f"{source.name} no longer yields {len(wanted)} of {len(names)} documents that were observed: {shown}.",
            hint="Plan again: what is gone is then known to be gone.",
        )

    async def _yielded(self, source: Source) -> AsyncGenerator[Document, None]:
        """What the user's generator yields, each checked; an error in it becomes a SourceError that names the user's line."""
        names: set[str] = set()
        expected = source.type
        async with aclosing(self.function()) as yielded:
            while True:
                try:
                    document = await anext(yielded)
                except StopAsyncIteration:
                    return
                except (GeneratorExit, KeyboardInterrupt):  # nobody asks any more
                    raise
                except BaseException as error:
                    task = asyncio.current_task()
                    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                        raise  # it is the look that is cancelled; otherwise it is the generator that raised it
                    where = self._line(error.__traceback__)
                    raise SourceError(
                        f"{source.name} failed while it was observed: {type(error).__name__}: {error} ({where}).",
                        hint="Its traceback is shown by: aipctl plan --debug",
                    ) from error
                if type(document) is not expected:
                    found = (
                        repr(document)
                        if isinstance(document, Document)
                        else f"{type(document).__name__} {document!r:.80}"
                    )
                    raise SourceError(
                        f"{source.name} yielded {found} ({self._here(yielded)}); declared is {expected.__name__}.",
                        hint=f"Yield {expected.__name__}(name, text=...).",
                    )
                if document.name in names:
                    raise SourceError(
                        f"{source.name} yielded two documents named {document.name!r} ({self._here(yielded)}).",
                        hint="Within one source every document needs a name of its own.",
                    )
                names.add(document.name)
                yield document

    def _here(self, yielded: AsyncGenerator[Any, None]) -> str:
        """The line of the `yield` at which the generator rests."""
        frame = getattr(yielded, "ag_frame", None)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "line unknown"

    def _line(self, trace: TracebackType | None) -> str:
        """The last line of the traceback that is in the generator's own file: the first frame below ours is the generator's."""
        frames = traceback.extract_tb(trace)[1:]
        own = [frame for frame in frames if frame.filename == frames[0].filename]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else "line unknown"
