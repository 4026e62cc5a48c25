"""The transport to S3 over boto3.

Law: `call` is a coroutine that never suspends, so that `bridge.run_sync` can finish it; any number of threads may use
one transport. The client is made at the first request: making one may look for credentials, and opening does no I/O. A
forked process makes its own.
"""

from __future__ import annotations

import math
from contextlib import closing, suppress
from typing import Any

from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from s3conv.bridge import Mutex, tell_of_forks
from s3conv.errors import InvalidInputError
from s3conv.store.call import time_left
from s3conv.store.s3_errors import BrokenBody
from s3conv.store.s3_transport import (
    Answer,
    ClientSettings,
    Parameters,
    came_by_a_fork,
    check_client,
    marked,
    teach,
    with_checksum,
)

_PART = 1 << 16
"""Bytes of a body that are read at once where time is short."""


class Boto3Transport:
    """See `s3_transport.Transport`."""

    def __init__(self, settings: ClientSettings, client: object = None) -> None:
        """Use `client`, which stays its owner's to close, or make one by `settings` when it is needed."""
        self._settings = settings
        self._made = client is None
        self._client: Any = client
        self._lock = Mutex()
        tell_of_forks(self)
        self.fan_out = settings.fan_out
        if client is not None:
            self.fan_out = check_client(client, asynchronous=False)
            teach(client)
            _limit(client)

    def forked(self) -> None:
        """See `Forkable.forked`. The client is not closed: its sockets are the parent's too."""
        self._client = None
        self._lock = Mutex()

    async def call(self, operation: str, parameters: Parameters) -> Answer:
        """See `Transport.call`."""
        client = self._client or self._make()
        answer: dict[str, Any]
        try:
            with marked(operation, parameters):
                answer = getattr(client, operation)(**with_checksum(client, operation, parameters))
        except HTTPError as error:
            # The SDK wraps what breaks on the way, but not where it reads a refusal of what it would have streamed.
            raise BrokenBody(str(error)) from error
        if operation == "get_object":
            try:
                with closing(answer["Body"]) as stream:
                    answer["Body"] = _read(stream)
            except Exception as error:
                raise BrokenBody(str(error)) from error
        return answer

    async def close(self) -> None:
        """See `Transport.close`."""
        if self._made and self._client is not None:
            self._client.close()

    def _make(self) -> Any:
        if not self._made:
            raise came_by_a_fork()
        import boto3
        from botocore.config import Config

        with self._lock:  # A boto3 session must not make clients in two threads at once.
            if self._client is None:
                session: Any = self._settings.session or boto3.Session()
                try:
                    client = session.client(
                        "s3",
                        endpoint_url=self._settings.endpoint_url,
                        region_name=self._settings.region,
                        config=Config(**self._settings.config()),
                    )
                except ValueError as error:
                    raise InvalidInputError(f"no S3 client can be made: {error}") from error
                teach(client)
                _limit(client)
                self._client = client
            return self._client


class _InTime(Timeout):
    """A client's timeouts, cut to what is left of the running call. urllib3 clones them for each request."""

    def clone(self) -> Timeout:
        left = time_left()
        if left == math.inf:
            return super().clone()
        return Timeout(connect=self._connect, read=self._read, total=max(left, 0.001))


def _limit(client: Any) -> None:
    """Let the requests of `client` wait no longer than their call may take.

    The SDK has no public way to give one request a timeout of its own. tests/store/test_deadlines.py shows that this
    one works with the SDK at hand; with one that is built otherwise, requests wait for as long as the client is set to.
    """
    with suppress(AttributeError):
        session = client._endpoint.http_session
        given = session._timeout
        if isinstance(given, _InTime):
            return
        if not isinstance(given, Timeout):
            given = Timeout(connect=given, read=given)
        limited = _InTime(connect=given._connect, read=given._read)
        session._timeout = limited
        for manager in (session._manager, *session._proxy_managers.values()):
            manager.connection_pool_kw["timeout"] = limited
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated over
                manager.pools[key].timeout = limited


def _read(stream: Any) -> bytes:
    """The whole body; where the call has a limit, in parts, so that a slow one is noticed."""
    if time_left() == math.inf:
        return bytes(stream.read())
    parts = []
    while part := stream.read(_PART):
        parts.append(part)
        if time_left() <= 0:
            raise TimeoutError("it took longer than its call may take")
    return b"".join(parts)
