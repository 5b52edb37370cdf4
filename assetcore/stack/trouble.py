"""Trouble: what is wrong with a service that was asked, and what can be done?"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Literal

Kind = Literal["starting", "password", "unreachable", "other"]


class Trouble(Exception):
    """A service does not answer as it should; `problem` completes the sentence "postgres at … : …"."""

    def __init__(self, kind: Kind, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.kind: Kind = kind
        self.problem = problem
        self.remedy = remedy


def connection_trouble(error: BaseException, setting: str) -> Trouble:
    """The trouble behind an error of a client library, found along its causes."""
    seen: BaseException | None = error
    while seen is not None:
        match seen:
            case socket.gaierror():
                return Trouble(
                    "unreachable", "its host name is not known", f"Correct {setting}, or the network's name service."
                )
            case ConnectionRefusedError():
                return Trouble("unreachable", "nothing listens there", f"Start it, or correct {setting}.")
            case TimeoutError() | asyncio.TimeoutError():
                return Trouble(
                    "unreachable", "it does not answer in time", f"Correct {setting}, or see what keeps it busy."
                )
            case ConnectionError() | asyncio.IncompleteReadError():
                return Trouble("unreachable", "it closed the connection", f"See its log, or correct {setting}.")
            case OSError(errno=errno.ENOENT):
                return Trouble("unreachable", "its socket does not exist", f"Start it, or correct {setting}.")
        seen = seen.__cause__ or seen.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    if "refused" in text or "Connect call failed" in text:
        return Trouble("unreachable", "nothing listens there", f"Start it, or correct {setting}.")
    return Trouble("other", text[:300], f"See its log, or correct {setting}.")
