"""The functions on an archive in memory, one per test; each `fresh` import of one is a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from s3conv import Archive
from tests.functions.calls import Chat, fresh


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an archive as the maintenance function makes it, which the functions' environment names."""
    url = f"memory://{uuid4().hex}"
    Archive.create(url, partition_by="metadata.owner").close()
    monkeypatch.setenv("S3CONV_URL", url)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "the-function")
    return url


@pytest.fixture
def start(url: str) -> Callable[[], Chat]:
    """Starts a process with the chat function."""
    return lambda: Chat(fresh("chat"))


@pytest.fixture
def chat(start: Callable[[], Chat]) -> Chat:
    """A process with the chat function."""
    return start()
