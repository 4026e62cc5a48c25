"""One call of an operation: its time is limited, and what it does is counted, where somebody asked for either.

Law: a call for which nobody asked anything costs nothing. Whoever is told of operations cannot make one fail.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TypeVar

from s3conv.core.context import Context, Operation
from s3conv.errors import InvalidInputError
from s3conv.store.call import Call, CalledStore, Seconds

R = TypeVar("R")

NOT_DONE = {
    "create": "the archive may not be there yet: create it again, with exist_ok",
    "save": "the conversation was not saved",
    "save_many": "it was not saved",
    "edit": "what was changed was not saved",
    "delete": "the conversation was not deleted",
    "maintain": "what was done until then counts: run it again",
    "repair": "the index is as usable as before: run it again",
}
"""What a caller is told whose time is over, by operation; all others only read."""

_log = logging.getLogger("s3conv")


@contextmanager
def called(context: Context, name: str, timeout: Seconds) -> Generator[Context]:
    """The context of one call; when it is over, `on_operation` and the log are told.

    Args:
        context: the open archive.
        name: of the operation.
        timeout: seconds that it may take, or a function that says how many are left.

    Raises:
        InvalidInputError: `timeout` is not a positive number.
    """
    if not _is_asked(context, timeout):
        yield context
        return
    _check_timeout(timeout)
    call = Call(name, context.store.url, timeout, NOT_DONE.get(name, "nothing was changed"), context.monotonic)
    error: str | None = None
    try:
        yield replace(context, store=CalledStore(context.store, call, context.runner), call=call)
    except BaseException as raised:
        error = type(raised).__name__ if not isinstance(raised, GeneratorExit) else None
        raise
    finally:
        _tell(context, call, error)


def streamed(
    context: Context, name: str, timeout: float | None, make: Callable[[Context], AsyncGenerator[R, None]]
) -> AsyncGenerator[R, None]:
    """What `make` gives, as one call."""
    return _streamed(context, name, timeout, make) if _is_asked(context, timeout) else make(context)


async def _streamed(
    context: Context, name: str, timeout: float | None, make: Callable[[Context], AsyncGenerator[R, None]]
) -> AsyncGenerator[R, None]:
    with called(context, name, timeout) as own:
        async with aclosing(make(own)) as items:
            async for item in items:
                yield item


@contextmanager
def paused(context: Context) -> Generator[None]:
    """Within it the call's clock stands still; behind it the call may take as long as `timeout` says, asked anew."""
    if context.call is None:
        yield
        return
    context.call.pause()
    try:
        yield
    finally:
        context.call.go_on()


def _check_timeout(timeout: object) -> None:
    if not (timeout is None or callable(timeout) or (isinstance(timeout, int | float) and timeout > 0)):
        raise InvalidInputError(f"timeout {timeout!r}: expected seconds, more than 0, or None")


def _is_asked(context: Context, timeout: Seconds) -> bool:
    return timeout is not None or context.on_operation is not None or _log.isEnabledFor(logging.DEBUG)


def _tell(context: Context, call: Call, error: str | None) -> None:
    operation = Operation(
        name=call.name,
        milliseconds=call.milliseconds,
        requests=call.requests,
        bytes_read=call.bytes_read,
        bytes_written=call.bytes_written,
        retries=call.retries,
        conflicts=call.conflicts,
        error=error,
    )
    _log.debug(
        "%s: %s after %.1f ms, %d requests, %d retries, %d conflicts, %d bytes read, %d written",
        operation.name,
        error or "done",
        operation.milliseconds,
        operation.requests,
        operation.retries,
        operation.conflicts,
        operation.bytes_read,
        operation.bytes_written,
        extra={"operation": operation},
    )
    if context.on_operation is not None:
        try:
            context.on_operation(operation)
        except Exception:
            _log.exception("on_operation failed for %s; the operation itself is not affected", operation.name)
