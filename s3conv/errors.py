"""The few errors of s3conv, each saying what the caller should do about it.

Law: every error that s3conv raises is a `StorageError`, so that one `except StorageError` catches them all
(code written for dataknobs' conversation storage does exactly that). A new type is added only where a
caller would act differently. Messages name the object, what was found, what was expected and what to do;
they never contain message content or secrets.
"""

from __future__ import annotations


class StorageError(Exception):
    """Root of every error of s3conv."""


class InvalidInputError(StorageError, ValueError):
    """What was passed in cannot be used (an id, a URL, a filter, a state): change the call. Nothing was written."""


class NotFoundError(StorageError, LookupError):
    """The conversation or the archive that was named does not exist: check the name, or create it."""


class AlreadyExistsError(StorageError):
    """There is an archive at this URL already: open it instead of creating it."""


class ConflictError(StorageError):
    """Another writer got there first; nothing of this save was kept: load again, or save with `on_conflict="merge"`.

    `deleted` is true when the other writer deleted the conversation: a state loaded before that cannot be saved.
    """

    def __init__(self, message: str, *, deleted: bool = False) -> None:
        super().__init__(message)
        self.deleted = deleted


class OutcomeUnknownError(StorageError):
    """The store gave no definite answer: the write may or may not have happened. Load and look, or save again."""


class PartialSaveError(StorageError):
    """Some conversations of a `save_many` were saved and some were not: see `saved` and `failed`, retry the latter."""

    # The keywords can be left out because a pickle of an error is read back from its message, and the rest set then.
    def __init__(
        self, message: str, *, saved: list[str] | None = None, failed: dict[str, StorageError] | None = None
    ) -> None:
        super().__init__(message)
        self.saved = saved or []
        self.failed = failed or {}


class SchemaVersionError(StorageError):
    """A conversation was written by a newer MAJOR schema version, or names none that can be read: upgrade s3conv."""


class UnsupportedFormatError(StorageError):
    """An object needs a format, kind or feature that this version of s3conv does not know: upgrade s3conv."""


class CorruptError(StorageError):
    """An object is there but is not what it must be (truncated, not JSON, not a conversation): restore it."""


class IndexDamagedError(CorruptError):
    """An object of the index is missing or unreadable; no conversation is lost: run `s3conv verify --repair`."""


class UnsafeStoreError(StorageError):
    """The store ignores or races conditional writes, so that updates would be lost: use another store."""


class StoreError(StorageError):
    """A request to the object store failed for a reason that retrying will not mend: read the message."""


class AccessDeniedError(StoreError):
    """The store refused (403): check the policy of the credentials in use."""


class CredentialsError(StoreError):
    """There are no usable credentials: configure them as for any AWS tool."""


class BucketNotFoundError(StoreError):
    """The bucket (or the directory's file system) does not exist: check the URL, the region and the endpoint."""


class DeadlineExceededError(StorageError):
    """The call took longer than its `timeout`; what it was about to do was not done: read the message, try again.

    A write that was sent before, and not answered, is an `OutcomeUnknownError` as ever.
    """


class UnavailableError(StoreError):
    """The store could not be reached, did not answer, or answered 5xx after retries: try again later.

    For a write this leaves open whether it was applied.
    """
