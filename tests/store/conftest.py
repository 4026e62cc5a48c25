"""The backends that the conformance suite runs over, each with the way its coroutines are run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest

from s3conv.bridge import run_sync
from s3conv.store import ObjectStore, open_store
from tests.servers.place import Place
from tests.store.faulty_server import FaultyServer, faulty_server

R = TypeVar("R")


@dataclass
class Backend:
    """One kind of store. `open` gives one more store over the same objects."""

    kind: str
    open: Callable[[], ObjectStore]
    asynchronous: bool = False

    def run(self, body: Callable[[ObjectStore], Coroutine[Any, Any, R]]) -> R:
        """Run a test body over a store of its own, as a caller of this kind would."""

        async def whole() -> R:
            store = self.open()
            try:
                return await body(store)
            finally:
                await store.close()

        return asyncio.run(whole()) if self.asynchronous else run_sync(whole())

    @property
    def keeps_metadata(self) -> bool:
        return self.kind != "file"


@pytest.fixture(params=["memory", "file", "s3-boto3", "s3-aioboto3"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each backend in turn."""
    kind: str = request.param
    if kind == "memory":
        return Backend(kind, lambda: open_store(f"memory:/{tmp_path}"))
    if kind == "file":
        return Backend(kind, lambda: open_store(f"file://{tmp_path}/archive"))
    asynchronous = kind == "s3-aioboto3"
    session = request.getfixturevalue("aio_session" if asynchronous else "s3_session")
    endpoint: str | None = request.getfixturevalue("s3_endpoint")
    place: Place = request.getfixturevalue("s3_place")
    return Backend(
        kind,
        lambda: open_store(
            f"{place.url}/some/archive", asynchronous=asynchronous, session=session, endpoint_url=endpoint
        ),
        asynchronous,
    )


@pytest.fixture
def s3_store(s3_endpoint: str | None, s3_session: boto3.Session, s3_place: Place) -> ObjectStore:
    """A synchronous S3 store over a fresh prefix."""
    return open_store(f"{s3_place.url}/archive", session=s3_session, endpoint_url=s3_endpoint)


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    """A server that answers as the test tells it to."""
    with faulty_server() as server:
        yield server


@pytest.fixture(params=["s3-boto3", "s3-aioboto3"])
def faulty_backend(request: pytest.FixtureRequest, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Both transports, talking to `faulty`. The SDK's waits between its retries are random; here they are none."""
    monkeypatch.setattr("random.random", lambda: 0.0)
    asynchronous = request.param == "s3-aioboto3"
    session = request.getfixturevalue("aio_session" if asynchronous else "s3_session")
    return Backend(
        request.param,
        lambda: open_store(
            "s3://some-bucket/archive", asynchronous=asynchronous, session=session, endpoint_url=faulty.url
        ),
        asynchronous,
    )
