"""What `s3conv export` does: choose where the conversations go, write them, and say what came of it.

Law: a pattern that takes too long on one text ends the export with an error that names it: Python looks for signals
while it searches, and this is the one place that may use them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO

from typer import BadParameter

from s3conv.bridge import run_sync
from s3conv.cli.opening import Target, reading
from s3conv.cli.output import complain, note, printable
from s3conv.cli.progress import export_progress
from s3conv.errors import InvalidInputError, StorageError
from s3conv.exchange.checkpoint import Checked
from s3conv.exchange.exporting import Exported, Job, export_files, export_stream
from s3conv.exchange.outputs import Folder, Output, check_apart, folder_of, open_bucket
from s3conv.exchange.redacting import Redaction
from s3conv.exchange.writing import FORMATS, format_named
from s3conv.store import open_store

SLOW = 10.0
"""Seconds that the redaction of one conversation may take."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, **{f"{unit}b": 1000**n for n, unit in enumerate("kmgt", 1)}}
_UNITS |= {f"{unit}ib": 1024**n for n, unit in enumerate("kmgt", 1)}


def read_size(text: str | None) -> int | None:
    """A number of bytes, as "64MB" or "1GiB".

    Raises:
        BadParameter: it is none.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise BadParameter(f"{text!r}: expected a size such as 64MB", param_hint="--shard-size")
    return size


def check_job(job: Job, place: str) -> None:
    """Find wrong usage before any request is made.

    Raises:
        BadParameter: the job cannot be done.
    """
    with reading(None):
        format_named(job.format, job.branches)
        Redaction(job.redact)
    if job.shards is not None and job.shard_size is not None:
        raise BadParameter("--shards and --shard-size: expected one of them")
    if place == "-" and (_is_folder(job) or FORMATS[job.format].render is None):
        what = "shards need" if job.shards or job.shard_size else f"{job.format} needs"
        raise BadParameter(f"{what} a place to write to, which stdout is not", param_hint="--output")


def run_export(target: Target, place: str, job: Job) -> Exported:
    """Export to a place: `-`, a file, a folder or an `s3://` URL.

    Raises:
        InvalidInputError: the job cannot be done so.
        StorageError: as for `Archive.export`.
    """
    redaction = Redaction(job.redact)
    with target.open() as archive, time_limit(redaction), _naming(place if place != "-" else "stdout"):
        total = archive.count(job.where) if sys.stderr.isatty() and place != "-" else None
        with export_progress(total) as progress:
            if place == "-" or _is_device(place):
                with _stream(place) as out:
                    return export_stream(archive, out, job, redaction, progress, _complain)
            with open_output(target, place, as_folder=_is_folder(job)) as (output, name):
                return export_files(archive, output, job, name, redaction, progress, _complain)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Let an error that comes of writing name the place, where it names no file: a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = place
        raise


def _complain(conversation_id: str, error: StorageError) -> None:
    complain(str(error))


def _is_folder(job: Job) -> bool:
    """Whether what comes of it is a folder, whatever its name."""
    return bool(job.shards or job.shard_size or FORMATS[job.format].pages)


def _is_device(place: str) -> bool:
    """Whether it is there and can be written to, but not replaced: a pipe, a terminal."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def _stream(place: str) -> Iterator[IO[bytes]]:
    if place != "-":
        with open(place, "wb") as device:
            yield device
        return
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def open_output(
    target: Target, place: str, *, as_folder: bool, write: bool = True
) -> Iterator[tuple[Output, str | None]]:
    """Where an export goes, and the name of the one file that it is; None: it is a folder's.

    Args:
        target: says how S3 is reached.
        place: a path, or a URL with file:// or s3://.
        as_folder: whether a path that is not there is to be a folder.
        write: whether it is written to; that folder is made then.

    Raises:
        BadParameter: it is no place to write to, or it is in the archive.
        FileNotFoundError: the folder that the file is to be in is not there.
    """
    if place.startswith("s3://"):
        with reading("--output"):
            output, store = open_bucket(place, target.options_for(place))
        try:
            if write:
                with reading("--output"):
                    check_apart(target.url, output)
            yield output, None
        finally:
            run_sync(store.close())
        return
    if "://" in place and not place.startswith("file://"):
        raise BadParameter(f"{place!r}: expected a path, s3://bucket/prefix or -", param_hint="--output")
    if "://" in place:
        with reading("--output"):
            open_store(place)  # knows a URL that names a host, and touches nothing
    path = folder_of(place)
    if as_folder or path.is_dir() or place.endswith("/"):
        if write:
            with reading("--output"):
                check_apart(target.url, Folder(path))
            path.mkdir(exist_ok=True)
        yield Folder(path), None
    else:
        path = Path(os.path.realpath(path))  # through a symbolic link, which itself stays
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        folder = Folder(path.parent, f".{path.name}.checkpoint/")
        with reading("--output"):
            check_apart(target.url, folder)
        yield folder, path.name


@contextmanager
def time_limit(redaction: Redaction) -> Iterator[None]:
    """Let an error end the redaction of one conversation that takes more than `SLOW` seconds."""
    if not redaction:
        yield
        return

    def look(number: int, frame: FrameType | None) -> None:
        if redaction.busy_since is not None and time.monotonic() - redaction.busy_since > SLOW:
            raise InvalidInputError(
                f"the patterns to redact took more than {SLOW:g} seconds on conversation {redaction.working_on!r}: "
                "one of them goes through too many ways to match; write it without repeats inside of repeats"
            )

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, SLOW / 10, SLOW / 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def say_exported(done: Exported, place: str, seconds: float, as_json: bool) -> None:
    """The end of an export: one JSON object on stdout (on stderr, if the export itself went there), or lines."""
    if as_json:
        said = {
            "output": place,
            "conversations": done.conversations,
            "rows": done.rows,
            "bytes": done.bytes,
            "files": done.files,
            "continued": done.continued,
            "redacted": done.redacted,
            "left_out": dict(done.left_out),
            "damaged": [one.conversation_id for one in done.damaged],
            "seconds": round(seconds, 3),
        }
        print(json.dumps(said), file=sys.stderr if place == "-" else sys.stdout)
        return
    if done.continued:
        note(f"went on from an export that was interrupted after {_counted(done.continued, 'conversation')}")
    if done.left_out:
        note("left out, as the format has no place for them:")
    for what, number in sorted(done.left_out.items()):
        note(f"  {what}: {number:,}")
    if done.redacted:
        note(f"redacted {_counted(done.redacted, 'match', 'es')}")
    if done.damaged:
        note(f"could not be read, and is not there: {_counted(len(done.damaged), 'conversation')}, named above")
    if place != "-":
        note(f"{_counted(done.conversations, 'conversation')} written to {place}")


def _counted(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}{plural * (number != 1)}"


def say_checked(found: Checked, place: str, as_json: bool) -> None:
    """What a check of an export found."""
    if as_json:
        print(json.dumps(asdict(found)))
        return
    for problem in found.problems:
        complain(problem)
    if not found.problems:
        conversations, files = _counted(found.conversations, "conversation"), _counted(found.shards, "file")
        print(f"{printable(place)} is whole: {conversations} in {files}")
