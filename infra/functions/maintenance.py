"""The maintenance function: keeps the archive's index in order, by a schedule.

Law: bounded by the time that the invocation has left; what is not done then, the next one does. What fails is raised,
so that the function's alarm and its dead-letter queue see it. Any number may run at once.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import runtime
from s3conv import Archive, Maintained, NotFoundError

_log = logging.getLogger("s3conv")
_log.setLevel(logging.INFO)

OPTIONS = runtime.store_options()
ARCHIVE = runtime.open_archive(OPTIONS)


def handler(event: object, context: runtime.LambdaContext) -> dict[str, Any]:
    """Maintain the archive, for the time that is left; makes it first if it is not there.

    Raises:
        StorageError: what went wrong.
    """
    try:
        done = ARCHIVE.maintain(timeout=runtime.time_left(context))
    except NotFoundError:
        Archive.create(runtime.url(), partition_by=runtime.PARTITION_BY, exist_ok=True, **OPTIONS).close()
        _log.info("made an archive at %s", runtime.url())
        done = ARCHIVE.maintain(timeout=runtime.time_left(context))
    _report(done)
    return asdict(done)


def _report(done: Maintained) -> None:
    runtime.put_metrics({"IntentsPending": (done.pending, "Count"), "Finished": (int(done.finished), "Count")})
    _log.info("maintained: %s", asdict(done))
