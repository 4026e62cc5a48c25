"""s3conv's JSON lines, out: the stored form of each conversation on a line of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from s3conv.archive import Archive
from s3conv.format.filters import Where


def write_lines(
    archive: Archive, out: IO[bytes], where: Where | None = None, progress: Callable[[], None] = lambda: None
) -> int:
    """Write the conversations that meet all conditions, oldest first; return how many.

    Args:
        archive: where they are.
        out: written to and left open.
        where: conditions, as for `Archive.list`.
        progress: called after each conversation.
    """
    written = 0
    for document in archive.export(where):
        out.write(document.line + b"\n")
        written += 1
        progress()
    return written
