"""Writing a file so that it is complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(name: str) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name when the block ends well; if it raises, what was there before stays."""
    path = Path(os.path.realpath(name))  # through a symbolic link, which itself stays
    if path.exists() and not path.is_file():
        with path.open("wb") as device:  # a pipe or a device cannot be replaced
            yield device
        return
    # Beside it, because a file is renamed in one step only within one file system.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise
