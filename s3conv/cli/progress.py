"""Progress bars: on a terminal, on stderr, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from s3conv.cli.output import short_size


@contextmanager
def byte_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over a number of bytes; gives the function to call with each number of bytes that are done."""
    with _progress(BarColumn(), DownloadColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def export_progress(total: int | None, done: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A bar over a number of conversations; gives the function to call with each number, and their bytes."""
    written = 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    with _progress(*columns, TextColumn("left")) as bar:
        task = bar.add_task("exporting", total=total, completed=done, said="")

        def advance(conversations: int, size: int) -> None:
            nonlocal written
            written += size
            speed = bar.tasks[0].speed or 0
            bar.update(task, advance=conversations, said=f"{short_size(written)} {speed:,.0f}/s")

        yield advance if not bar.disable else lambda conversations, size: None


@contextmanager
def share_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar over several things that are done; gives the function to call with what is done, and the share of it."""
    with _progress(BarColumn(), TaskProgressColumn()) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is done, where nothing tells how much of it is left."""
    with _progress(SpinnerColumn()) as progress:
        progress.add_task(what, total=None)
        yield


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
