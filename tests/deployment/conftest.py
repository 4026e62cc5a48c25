"""The deployment package, unpacked once for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.package import unpacked


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Lambda would call /var/task, for this machine and this Python. It is not to be changed."""
    return unpacked(tmp_path_factory.mktemp("package"))
