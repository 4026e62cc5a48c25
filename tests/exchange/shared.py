"""Where the real conversations are, which the project reads and never copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
FOLDERS = ("oasst", "chatgpt", "dataknobs")


def real_file(name: str) -> Path:
    """A file of ../shared/data, such as "oasst/en_100_tree.jsonl.gz"; skips the test where that folder is missing."""
    if not DATA.is_dir():
        pytest.skip("the real conversations of ../shared/data are not here")
    return DATA / name


def real_files(folders: Sequence[str] = FOLDERS) -> list[Path]:
    """Every file of some folders."""
    real_file("")
    return sorted(path for folder in folders for path in (DATA / folder).iterdir())
