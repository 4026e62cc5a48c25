"""Progress bars: on a terminal, on stderr, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def byte_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over a number of bytes; gives the function to call with each number of bytes that are done."""
    with _progress(BarColumn(), DownloadColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def count_progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar over a number of conversations; gives the function to call after each."""
    with _progress(BarColumn(), MofNCompleteColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _progress(*columns: BarColumn | DownloadColumn | MofNCompleteColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
