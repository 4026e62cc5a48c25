"""Both transports to S3 as callers get them, through a proxy that can do harm."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from s3conv import Archive, AsyncArchive
from s3conv.bridge import run_sync
from s3conv.format.control import Descriptor
from s3conv.format.keys import DESCRIPTOR, MANIFEST
from s3conv.format.manifest import Manifest
from s3conv.store import ObjectStore, StoredObject, open_store
from s3conv.store.counting import CountingStore
from tests.integration.proxy import Proxy, proxy_to
from tests.integration.workload import PARTITION_BY

R = TypeVar("R")

READ_TIMEOUT = 0.5
"""Seconds that clients wait for an answer in tests of stalls; a slow answer of the server is one more fault to them."""


@pytest.fixture(scope="session")
def proxy_server(s3_endpoint: str) -> Iterator[Proxy]:
    with proxy_to(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_server: Proxy) -> Iterator[Proxy]:
    """The proxy, harmless until told otherwise."""
    proxy_server.reset()
    yield proxy_server
    proxy_server.reset()


@dataclass
class Side:
    """One transport: `open` gives an archive through the proxy, `run` runs what uses it."""

    kind: str
    proxy: Proxy
    bucket: str
    session: Any
    plain_client: Any
    aio_session: Any
    runner: asyncio.Runner | None
    impatient: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _client: Any = None

    def run(self, coro: Coroutine[Any, Any, R]) -> R:
        return self.runner.run(coro) if self.runner is not None else run_sync(coro)

    def direct(self, prefix: str) -> ObjectStore:
        """A synchronous store past the proxy."""
        return open_store(f"s3://{self.bucket}/{prefix}", client=self.plain_client)

    def archive_past_the_proxy(
        self, objects: Sequence[tuple[str, StoredObject]] = (), prefix: str = "archive"
    ) -> Archive:
        """An archive that holds these objects, or nothing yet, as one opens it who has nothing to do with the proxy."""
        store = self.direct(prefix)
        if not objects:
            make_archive(store)
        for key, found in objects:
            run_sync(store.put(key, found.body, metadata=found.metadata))
        return self._stack.enter_context(Archive.open(store, auto_maintain=False))

    def client(self) -> Any:
        """The client of this test, with a short patience if it has to do with stalls."""
        if self._client is None:
            options: dict[str, Any] = {"max_pool_connections": 8, **self.config}
            if self.impatient:
                options["read_timeout"] = READ_TIMEOUT
                options["retries"] = {"total_max_attempts": 10}  # a machine that is slow now and then is not the point
            if self.runner is None:
                self._client = self.session.client("s3", endpoint_url=self.proxy.url, config=Config(**options))
                self._stack.callback(self._client.close)
            else:
                from aiobotocore.config import AioConfig

                context = self.aio_session.client("s3", endpoint_url=self.proxy.url, config=AioConfig(**options))
                self._client = self.runner.run(context.__aenter__())
                self._stack.callback(lambda: self.run(context.__aexit__(None, None, None)))
        return self._client

    def open(self, prefix: str) -> tuple[Archive | AsyncArchive, CountingStore]:
        """An archive with nothing in its caches, over the client of this test; and what counts its requests."""
        url = f"s3://{self.bucket}/{prefix}"
        counting = CountingStore(open_store(url, asynchronous=self.runner is not None, client=self.client()))
        archive = Archive.open(counting) if self.runner is None else AsyncArchive.open(counting)
        archive._context.jitter = lambda: 0.0
        return archive, counting

    def close(self) -> None:
        self._stack.close()
        if self.runner is not None:
            self.runner.close()


@pytest.fixture(params=["s3-boto3", "s3-aioboto3"])
def side(
    request: pytest.FixtureRequest,
    proxy: Proxy,
    s3_session: boto3.Session,
    s3_client: Any,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Side]:
    """Both transports in turn. The SDK's waits between its retries are random; here they are none."""
    monkeypatch.setattr("random.random", lambda: 0.0)
    aio_session, runner = None, None
    if request.param == "s3-aioboto3":
        aio_session = request.getfixturevalue("aio_session")
        runner = asyncio.Runner()
    side = Side(request.param, proxy, s3_bucket, s3_session, s3_client, aio_session, runner)
    yield side
    proxy.reset()
    side.close()


def make_archive(store: ObjectStore) -> None:
    """What `Archive.create` leaves, without its trials of the store."""
    run_sync(store.put(DESCRIPTOR, Descriptor(PARTITION_BY, "made by hand").encode()))
    run_sync(store.put(MANIFEST, Manifest(generation=0, nonce="first").encode()))
