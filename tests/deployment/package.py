"""The deployment package for this platform, unpacked, and the environment in which Lambda's runtime would run it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from infra import build

PROJECT = Path(__file__).parents[2]
RUNTIME = PROJECT / ".venv-lambda" / "bin" / "python"
"""The Python that has what Lambda's runtime has, boto3 and its client, and nothing else."""


def unpacked(folder: Path) -> Path:
    """Build the package for this machine and this Python, and unpack it below `folder`.

    Raises:
        FileNotFoundError: the environment or the wheels were not made; says how.
    """
    if not RUNTIME.exists():
        raise FileNotFoundError(
            "the tests need the client of Lambda's runtimes, and its environment .venv-lambda is not there: run "
            "`make test` once, or `make .venv-lambda/.installed`"
        )
    package = folder / "package.zip"
    build.build(package, build.architecture_here(), build.python_here())
    with zipfile.ZipFile(package) as content:
        content.extractall(folder / "task")
    return folder / "task"
