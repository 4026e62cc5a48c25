"""A call's time is over when it is over, whatever the server does: it is silent, slow, or refuses again and again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from s3conv.bridge import TaskRunner, ThreadRunner
from s3conv.errors import DeadlineExceededError, UnavailableError
from s3conv.store import ObjectStore
from s3conv.store.call import Call, CalledStore
from tests.store.conftest import Backend
from tests.store.faulty_server import Answer, FaultyServer, error
from tests.store.test_s3_faults import ALL, FOUND, Operation

TIMEOUT = 0.4
LONG = 30.0
"""Seconds below which a test has ended in time: the SDK by itself waits for 60, and that several times."""


def called(store: ObjectStore, backend: Backend, timeout: float = TIMEOUT) -> tuple[CalledStore, Call]:
    call = Call("load", store.url, timeout, "nothing was changed")
    return CalledStore(store, call, TaskRunner() if backend.asynchronous else ThreadRunner(1)), call


@pytest.mark.parametrize("operation", ALL)
def test_a_server_that_is_silent(faulty_backend: Backend, faulty: FaultyServer, operation: Operation) -> None:
    faulty.respond = lambda method, path, number: Answer(hang=True)

    async def body(store: ObjectStore) -> None:
        slow, call = called(store, faulty_backend)
        began = time.monotonic()
        if operation.__name__ == "_put_if":
            with pytest.raises(UnavailableError, match="answer"):  # it may have been applied: that must be known
                await operation(slow)
        else:
            with pytest.raises(DeadlineExceededError, match=r"load in s3.*0\.4 s.*nothing was changed"):
                await operation(slow)
        assert time.monotonic() - began < LONG
        assert call.requests == 1
        with pytest.raises(DeadlineExceededError):
            await operation(slow)
        assert call.requests == 1

    faulty_backend.run(body)
    assert len(faulty.requests) == 1


def test_a_server_that_is_silent_on_a_connection_in_use(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(hang=True) if number else FOUND

    async def body(store: ObjectStore) -> None:
        await store.get("a/b")
        slow, _ = called(store, faulty_backend)
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await slow.get("a/b")
        assert time.monotonic() - began < LONG

    faulty_backend.run(body)


def test_a_body_that_takes_too_long(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(200, b"x" * 200_000_000, FOUND.headers, dribble=True)

    async def body(store: ObjectStore) -> None:
        slow, _ = called(store, faulty_backend)
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await slow.get("a/b")
        assert time.monotonic() - began < LONG

    faulty_backend.run(body)


@pytest.mark.parametrize("outage", [Answer(500), error(503, "SlowDown"), Answer(drop=True)])
def test_the_sdk_begins_no_wait_that_could_end_too_late(
    faulty_backend: Backend, faulty: FaultyServer, outage: Answer
) -> None:
    faulty.respond = lambda method, path, number: outage

    async def body(store: ObjectStore) -> None:
        slow, call = called(store, faulty_backend)  # before its first retry it would wait for up to a second
        with pytest.raises(UnavailableError):
            await slow.get("a/b")
        assert (call.requests, call.retries) == (1, 0)
        patient, call = called(store, faulty_backend, timeout=60)
        with pytest.raises(UnavailableError):
            await patient.get("a/b")
        assert call.requests == call.retries + 1 > 1
        # aiohttp repeats a GET by itself where a connection broke, and tells nobody.
        assert len(faulty.requests) >= 1 + call.requests

    faulty_backend.run(body)


def test_what_the_sdk_sends_again_is_counted(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: FOUND if number == 2 else error(503, "SlowDown")

    async def body(store: ObjectStore) -> None:
        counted, call = called(store, faulty_backend, timeout=60)
        assert await counted.get("a/b") is not None
        assert (call.requests, call.retries, call.bytes_read) == (3, 2, len(FOUND.body))

    faulty_backend.run(body)


def test_the_requests_of_others_wait_as_before(s3_session: Any, faulty: FaultyServer) -> None:
    from botocore.config import Config
    from botocore.exceptions import ReadTimeoutError

    from s3conv.store import open_store

    faulty.respond = lambda method, path, number: Answer(hang=True)
    config = Config(read_timeout=0.3, retries={"total_max_attempts": 1})
    client = s3_session.client("s3", endpoint_url=faulty.url, config=config)
    open_store("s3://some-bucket/archive", client=client)
    open_store("s3://some-bucket/archive", client=client)  # once more: it is taught already
    with pytest.raises(ReadTimeoutError):
        client.get_object(Bucket="some-bucket", Key="theirs")
    assert len(faulty.requests) == 1
