"""What the transports to S3 share: their interface, the making of a client, and the rule that a conditional PUT is
sent once.

Law: a transport sends and receives, and gives an answer as the SDK does, bodies read whole; it maps no errors. The
SDK's own retries stay for every other request, and for all that the owner of an injected client sends with it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol
from zlib import crc32

from botocore.exceptions import ClientError

from s3conv.errors import InvalidInputError
from s3conv.store.call import current, repeated

Parameters = Mapping[str, Any]
Answer = Mapping[str, Any]

FAN_OUT = 32
"""Requests in flight at once unless told: more than boto3's 10, which starves a fan-out, and few enough for a core."""

_REDIRECTS = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}

_EXPECT_FROM = 1 << 20
"""Bytes of a body from which it is worth a round trip to ask first whether it will be taken."""


_LONGEST_WAIT = 20.0
"""Seconds that the SDK waits at most before it sends a request again, whatever its retry mode."""


class Sending(Enum):
    """What the running request is; the SDK's handlers below look at nothing else."""

    NOT_OURS = 0
    OURS = 1
    CONDITIONAL_PUT = 2
    RANGED_GET = 3


_sending: ContextVar[Sending] = ContextVar("s3conv_sending", default=Sending.NOT_OURS)


class Transport(Protocol):
    """Sends requests for an `S3Store`."""

    fan_out: int
    """As many connections as the pool has."""

    async def call(self, operation: str, parameters: Parameters) -> Answer:
        """Send one request, named as the SDK's method. `Body` of the answer is bytes; `BrokenBody` if it broke."""
        ...

    async def close(self) -> None:
        """Close the client if the transport made it."""
        ...


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to make a client. None leaves a thing to the SDK: environment, profile, role."""

    session: object = None
    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    fan_out: int = FAN_OUT

    def config(self) -> dict[str, Any]:
        """Arguments of the SDK's `Config`."""
        config: dict[str, Any] = {"max_pool_connections": self.fan_out, "user_agent_extra": "s3conv"}
        if self.addressing_style is not None:
            config["s3"] = {"addressing_style": self.addressing_style}
        return config


def check_client(client: Any, *, asynchronous: bool) -> int:
    """Return the size of an injected client's pool; raise `InvalidInputError` if it is no client of the right kind."""
    wanted = "an aioboto3 S3 client that has been entered" if asynchronous else "a boto3 S3 client"
    is_asynchronous = any(base.__module__.startswith("aiobotocore") for base in type(client).__mro__)
    try:
        service, pool = client.meta.service_model.service_name, client.meta.config.max_pool_connections
    except AttributeError:
        service, pool = None, 0
    if service != "s3" or is_asynchronous != asynchronous:
        kind = f"an {'' if is_asynchronous else 'a synchronous'}" if service == "s3" else ""
        raise InvalidInputError(f"client is {kind or type(client).__name__}: expected {wanted}")
    return int(pool)


def came_by_a_fork() -> InvalidInputError:
    """What to raise where an injected client is used in a process that was forked from its own."""
    return InvalidInputError(
        "client: this process was forked from the one that the client was passed in to, and two processes cannot share "
        "its connections; open the archive again here, with a client that was made here, or open it without one"
    )


def with_checksum(client: Any, operation: str, parameters: Parameters) -> Parameters:
    """Add the CRC32 of a PUT's body, unless the client is configured to send none.

    Over TLS the SDK would else send its own as a trailer, with `Content-Encoding: aws-chunked`, which some stores keep.
    """
    if operation == "put_object" and client.meta.config.request_checksum_calculation == "when_supported":
        checksum = crc32(parameters["Body"]).to_bytes(4, "big")
        return {**parameters, "ChecksumCRC32": b64encode(checksum).decode()}
    return parameters


@contextmanager
def marked(operation: str, parameters: Parameters) -> Generator[None]:
    """Let the handlers know the request that is made inside as ours."""
    kind = Sending.OURS
    if operation == "put_object" and ("IfMatch" in parameters or "IfNoneMatch" in parameters):
        kind = Sending.CONDITIONAL_PUT
    elif operation == "get_object" and "Range" in parameters:
        kind = Sending.RANGED_GET
    token = _sending.set(kind)
    try:
        yield
    finally:
        _sending.reset(token)


def sending() -> Sending:
    """What the running request is."""
    return _sending.get()


def teach(client: Any) -> None:
    """Make `client` send our PUTs and ranged GETs as they must be sent; the requests of its owner stay as they are.

    A blind re-send of a conditional PUT, after a lost response, would be refused with 412 by the very write that it
    repeats. First in line, so that the SDK's own handlers do not spend their retry quota on it. However often this is
    called, each handler is registered once.
    """
    events = client.meta.events
    events.register_first("needs-retry.s3.PutObject", _end_here, unique_id="s3conv-conditional-put-is-sent-once")
    events.register_first("needs-retry.s3", _on_attempt, unique_id="s3conv-no-retry-outlasts-its-call")
    # Last of all handlers of this event, to undo what the SDK's own has done.
    events.register_last("before-parameter-build", _ask_no_checksum, unique_id="s3conv-range-asks-no-checksum")
    events.register_last("before-send.s3.PutObject", _do_not_ask_first, unique_id="s3conv-small-put-does-not-ask-first")


def _do_not_ask_first(request: Any, **_: object) -> None:
    # "Expect: 100-continue" costs every PUT a round trip. It is not signed, so it can go.
    if sending() is not Sending.NOT_OURS and int(request.headers.get("Content-Length") or 0) < _EXPECT_FROM:
        del request.headers["Expect"]


def _ask_no_checksum(params: dict[str, Any], **_: object) -> None:
    # Some stores send the checksum of the whole beside a part of it, and the SDK, having asked, would compare the two.
    if sending() is Sending.RANGED_GET:
        params.pop("ChecksumMode", None)


def _on_attempt(
    attempts: int,
    operation: Any,
    response: tuple[Any, Any] | None = None,
    caught_exception: Exception | None = None,
    **_: object,
) -> None:
    call = current()
    if call is None:
        return
    if attempts > 1:
        repeated()  # this one was
    # The SDK may be about to wait, up to this long, before it sends the request again; it does not say for how long.
    if call.left() > min(2.0 ** (attempts - 1), _LONGEST_WAIT):
        return
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 500:
        raise ClientError(response[1], operation.name)


def _end_here(response: tuple[Any, Any] | None = None, caught_exception: Exception | None = None, **_: object) -> None:
    if sending() is not Sending.CONDITIONAL_PUT:
        return
    if caught_exception is not None:
        raise caught_exception
    if response is None:
        return
    status, parsed = response[0].status_code, response[1]
    if status < 400 or parsed.get("Error", {}).get("Code") in _REDIRECTS:
        return  # A redirect to the bucket's region is followed: it was not applied here.
    raise ClientError(parsed, "PutObject")
