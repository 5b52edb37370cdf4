"""Errors: what went wrong, for the one who can mend it.

    AssetcoreError                 1    something could not be done
    ├── DeclarationError           1    an asset, source or config is declared wrongly (found when the project is loaded)
    ├── ProjectError               1    a project cannot be found or loaded
    ├── StaleInputError            1    a selected asset has a stale input that is not selected
    ├── MakeError                  1    units failed
    ├── StorageError               1    an object is missing, damaged, or cannot be written
    ├── SourceError                1    a source cannot be observed
    ├── AnswerError                1    a model answered, but not what it was asked for
    ├── UnindexedError             1    vectors were made, and there is no index of them that answers
    ├── SelectionError             64   a selection or REF cannot be read
    │   └── NothingSelectedError   4    it can be read, but selects nothing
    ├── UsageError                 64   a command is used wrongly
    ├── SettingsError              64   a setting is unknown or has a wrong value
    └── ServiceError               69   a service cannot be reached, or refuses
        ├── GatewayError           69   the gateway to models cannot be reached, refuses or fails
        └── SchemaError            69   the database's schema is not the one this version works with

The number is the exit code of `aipctl`. A message is one or two sentences: who asked, for what, what there is instead.
`hint` says what to do about it, as a command where there is one.
"""

from __future__ import annotations


class AssetcoreError(Exception):
    """Base of every error that assetcore raises on purpose; its message is meant for people."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class DeclarationError(AssetcoreError):
    """An asset, source, check or config is declared wrongly; names the asset, file, line and the fix."""


class ProjectError(AssetcoreError):
    """A project cannot be found, imported or opened."""


class StaleInputError(AssetcoreError):
    """A selected asset depends on a stale one that is not selected (truth table, P15)."""


class MakeError(AssetcoreError):
    """Units failed while they were made; what succeeded is kept."""


class StorageError(AssetcoreError):
    """An object is missing, does not hash to what lineage says, or cannot be written."""


class SourceError(AssetcoreError):
    """A source cannot be observed: folder missing, file unreadable, generator failed."""


class AnswerError(AssetcoreError):
    """A model answered, but not what it was asked for; `answer` is what it said."""

    def __init__(self, message: str, *, answer: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.answer = answer


class UnindexedError(AssetcoreError):
    """Vectors were made, and there is no index of them that answers."""


class SelectionError(AssetcoreError):
    """A selection or a REF cannot be read."""

    exit_code = 64


class NothingSelectedError(SelectionError):
    """A selection is well formed, but selects nothing."""

    exit_code = 4


class PromotionError(AssetcoreError):
    """An environment cannot take another's place: that has moved on, or a blocking check has not passed."""


class UsageError(AssetcoreError):
    """A command is used wrongly."""

    exit_code = 64


class SettingsError(AssetcoreError):
    """A setting is unknown or has a value of the wrong form; names the setting and where it came from."""

    exit_code = 64


class ServiceError(AssetcoreError):
    """A service cannot be reached or refuses; names the service, its address and what to do."""

    exit_code = 69


class GatewayError(ServiceError):
    """The gateway to models cannot be reached, refuses or fails.

    `transient` says that the same question may be answered later, `retry_after` after how many seconds at the earliest, where it said so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, transient: bool = False, retry_after: float | None = None, hint: str | None = None
    ) -> None:  # fmt: skip
        super().__init__(message, hint=hint)
        self.status = status
        self.transient = transient
        self.retry_after = retry_after


class SchemaError(ServiceError):
    """The database's schema is older or newer than the one this version works with."""
