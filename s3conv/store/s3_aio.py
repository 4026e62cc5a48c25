"""The transport to S3 over aioboto3.

Law: it runs on the event loop that used it first, with tasks as many as its caller likes. The client is made, and
aioboto3 imported, at the first request. A forked process has no such loop, so it cannot use what its parent has used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from typing import Any

from s3conv.bridge import Once, tell_of_forks
from s3conv.errors import InvalidInputError, StorageError
from s3conv.store.s3_errors import BrokenBody
from s3conv.store.s3_transport import (
    Answer,
    ClientSettings,
    Parameters,
    Sending,
    came_by_a_fork,
    check_client,
    marked,
    sending,
    teach,
    with_checksum,
)


class AioTransport:
    """See `s3_transport.Transport`."""

    def __init__(self, settings: ClientSettings, client: object = None) -> None:
        """Use `client`, which stays its owner's to close, or make one by `settings` when it is needed."""
        self._settings = settings
        self._injected: Any = client
        self._forked = False
        tell_of_forks(self)
        self._opened: Once[tuple[Any, AsyncExitStack]] = Once(self._make)
        self.fan_out = settings.fan_out
        if client is not None:
            self.fan_out = check_client(client, asynchronous=True)
            _teach(client)

    def forked(self) -> None:
        """See `Forkable.forked`. A client is kept: to close it would stop its connections in the parent's loop."""
        self._forked = True

    async def call(self, operation: str, parameters: Parameters) -> Answer:
        """See `Transport.call`."""
        if self._forked and self._injected is not None:
            raise came_by_a_fork()
        client = self._injected or (await self._opened.get())[0]
        from aiohttp import ClientError  # here with the client

        answer: dict[str, Any]
        try:
            with marked(operation, parameters):
                answer = await getattr(client, operation)(**with_checksum(client, operation, parameters))
        except ClientError as error:
            # The SDK wraps what breaks on the way, but not where it reads a refusal of what it would have streamed.
            raise BrokenBody(str(error)) from error
        if operation == "get_object":
            try:
                stream = answer["Body"]
                # Not `as stream`: entering gives the raw response, which knows nothing of the SDK's checksum.
                async with stream:
                    answer["Body"] = await stream.read()
            except Exception as error:
                raise BrokenBody(str(error)) from error
        return answer

    async def close(self) -> None:
        """See `Transport.close`."""
        opened = await self._opened.take()
        if opened is not None:
            await opened[1].aclose()

    async def _make(self) -> tuple[Any, AsyncExitStack]:
        aioboto3: Any = require_aioboto3()
        from aiobotocore.config import AioConfig

        session: Any = self._settings.session or aioboto3.Session()
        stack = AsyncExitStack()
        try:
            client = await stack.enter_async_context(
                session.client(
                    "s3",
                    endpoint_url=self._settings.endpoint_url,
                    region_name=self._settings.region,
                    config=AioConfig(**self._settings.config()),
                )
            )
        except ValueError as error:
            raise InvalidInputError(f"no S3 client can be made: {error}") from error
        _teach(client)
        return client, stack


def require_aioboto3() -> object:
    """The module; `StorageError` says how to install it."""
    try:
        import aioboto3
    except ImportError as error:
        raise StorageError("asynchronous use of s3:// needs aioboto3: from a checkout, pip install '.[aio]'") from error
    module: object = aioboto3
    return module


def _teach(client: Any) -> None:
    teach(client)
    client.meta.events.register_first("before-send.s3.PutObject", _send_body_once, unique_id="s3conv-body-is-sent-once")


def _send_body_once(request: Any, **_: object) -> None:
    if sending() is Sending.CONDITIONAL_PUT:
        # The SDK wraps bytes into a file.
        body = request.body.getvalue() if isinstance(request.body, BytesIO) else request.body
        request.body = _OnceBody(body)


class _OnceBody:
    """A body that can be read once.

    aiohttp repeats a PUT by itself when its connection breaks, below the SDK and with no switch to say no; but it
    cannot repeat what it cannot read again.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._read:
            raise ConnectionError("the connection broke, and a conditional PUT is not sent twice")
        self._read = True
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body

    def seek(self, position: int) -> None:
        """Let the SDK follow a redirect: it rewinds the old body, then sends a new one."""
