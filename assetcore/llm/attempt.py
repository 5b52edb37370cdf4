"""Attempt: on which recorded answers does a call of a function rest, and are they why it failed?

An answer is recorded so that a question that was answered well is not paid for twice. Where the call that got it failed, whoever tries
again asks again; but not where what failed lies elsewhere: a gateway, a service, the time that there was, or another answer.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assetcore.errors import AnswerError, ServiceError

if TYPE_CHECKING:
    from assetcore.llm.client import Answer

__all__ = ["Attempt", "current"]


@dataclass(slots=True)
class Attempt:
    """The answers that one call got, in all the threads and tasks that it starts; of vectors the keys."""

    answers: list[Answer] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)
    _token: Token[Attempt | None] | None = None

    def __enter__(self) -> Attempt:
        self._token = _attempt.set(self)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            _attempt.reset(self._token)

    @property
    def keys(self) -> tuple[str, ...]:
        """Under which these answers are recorded, and these vectors kept."""
        return tuple(dict.fromkeys([*(one.key for one in self.answers if one.key), *self.vectors]))

    def suspects(self, error: BaseException) -> tuple[str, ...]:
        """The keys of those that may be why the call raised this error."""
        if isinstance(error, AnswerError):
            return tuple(one.key for one in self.answers if one.key and one.text == error.answer)
        return () if _is_elsewhere(error) else self.keys


def _is_elsewhere(error: BaseException) -> bool:
    """Whether an error, or what it was raised for, says that something else failed than what was made of the answers."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_elsewhere, error.exceptions))
    if isinstance(error, AnswerError | ServiceError | OSError):
        return True
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return cause is not None and _is_elsewhere(cause)


_attempt: ContextVar[Attempt | None] = ContextVar("assetcore_llm_attempt", default=None)


def current() -> Attempt | None:
    """The attempt that is being made, if there is one."""
    return _attempt.get()
