"""Ferry: how do many who come at the same moment cross together?

A statement to Postgres costs much the same for one small asset and for a hundred. Who comes while the ferry is out waits on the quay;
when it is back all who wait cross at once. Nobody waits for others to come: one who comes alone crosses alone, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Ferry"]

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(slots=True)
class Ferry(Generic[Q, A]):
    """Answers questions, those of the same moment together: `cross` gives an answer for each of them, in their order.

    `apart` are the errors that may be about one question only: then each crosses for itself, and only who it is about is told.
    Any other error is told to all who crossed.
    """

    cross: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]
    apart: tuple[type[Exception], ...] = ()
    _waiting: list[tuple[Q, asyncio.Future[A]]] = field(default_factory=list)
    _out: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer to this question."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._out is None or self._out.done():
            self._out = asyncio.create_task(self._go())
        return await answer

    async def close(self) -> None:
        """Answer nobody any more: all who asked have gone."""
        if self._out is not None:
            self._out.cancel()
            await asyncio.wait([self._out])

    async def _go(self) -> None:
        while self._waiting:
            aboard, self._waiting = self._waiting, []
            await self._carry(aboard)

    async def _carry(self, aboard: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self.cross([question for question, _ in aboard])
        except Exception as error:  # whatever it is, those who asked are told
            if len(aboard) > 1 and isinstance(error, self.apart):
                for one in aboard:
                    await self._carry([one])
                return
            for _, answer in aboard:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), given in zip(aboard, answers, strict=True):
            if not answer.done():
                answer.set_result(given)
