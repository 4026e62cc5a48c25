"""What S3Store sends, how often, and what it makes of answers that are no success."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from s3conv.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.store import Contended, NotModified, ObjectStore, PreconditionFailed
from tests.store.conftest import Backend
from tests.store.faulty_server import Answer, FaultyServer, error

CONDITIONS: list[dict[str, Any]] = [{"if_match": '"e"'}, {"if_none_match": "*"}]
OUTAGES = [
    Answer(drop=True),
    Answer(500),
    error(500, "InternalError"),
    error(503, "SlowDown"),
    error(503, "ServiceUnavailable"),
    error(429, "TooManyRequests"),
    error(400, "RequestTimeout"),
    Answer(502, b"<html>bad gateway</html>"),
]
FOUND = Answer(200, b"body", {"ETag": '"e"', "Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"})

Operation = Callable[[ObjectStore], Coroutine[Any, Any, object]]


async def _get(store: ObjectStore) -> object:
    return await store.get("a/b")


async def _head(store: ObjectStore) -> object:
    return await store.head("a/b")


async def _put(store: ObjectStore) -> object:
    return await store.put("a/b", b"x")


async def _put_if(store: ObjectStore) -> object:
    return await store.put("a/b", b"x", if_match='"e"')


async def _list(store: ObjectStore) -> object:
    return await store.list("a/")


async def _delete(store: ObjectStore) -> None:
    await store.delete(["a/b"])


async def _delete_two(store: ObjectStore) -> None:
    await store.delete(["a/b", "a/c"])


ALL: list[Operation] = [_get, _head, _put, _put_if, _list, _delete, _delete_two]


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("outage", OUTAGES)
def test_a_conditional_put_is_sent_once(
    faulty_backend: Backend, faulty: FaultyServer, outage: Answer, conditions: dict[str, Any]
) -> None:
    faulty.respond = lambda method, path, number: outage

    async def body(store: ObjectStore) -> None:
        with pytest.raises(UnavailableError, match="s3://some-bucket/archive/a/b"):
            await store.put("a/b", b"x", **conditions)

    faulty_backend.run(body)
    assert faulty.methods == ["PUT"]


def test_a_conditional_put_is_sent_once_on_a_connection_in_use(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: FOUND if number == 0 else Answer(drop=True)

    async def body(store: ObjectStore) -> None:
        await store.get("a/b")
        with pytest.raises(UnavailableError):
            await store.put("a/b", b"x", if_match='"e"')

    faulty_backend.run(body)
    assert faulty.methods == ["GET", "PUT"]


@pytest.mark.parametrize("outage", [Answer(drop=True), error(500, "InternalError"), error(503, "SlowDown")])
@pytest.mark.parametrize("operation", [_get, _head, _put, _list, _delete, _delete_two])
def test_any_other_request_is_retried(
    faulty_backend: Backend, faulty: FaultyServer, outage: Answer, operation: Operation
) -> None:
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    fine = Answer(200, page if operation is _list else b"", FOUND.headers)
    if operation is _delete_two:
        fine = Answer(200, b"<DeleteResult/>")
    faulty.respond = lambda method, path, number: outage if number < 2 else fine

    async def body(store: ObjectStore) -> None:
        await operation(store)

    faulty_backend.run(body)
    assert len(faulty.requests) == 3


@pytest.mark.parametrize("operation", ALL)
def test_an_outage_that_lasts_is_unavailable(
    faulty_backend: Backend, faulty: FaultyServer, operation: Operation
) -> None:
    faulty.respond = lambda method, path, number: error(503, "SlowDown")
    with pytest.raises(UnavailableError, match="503"):
        faulty_backend.run(operation)


@pytest.mark.parametrize("operation", ALL)
def test_nobody_listening_is_unavailable(faulty_backend: Backend, faulty: FaultyServer, operation: Operation) -> None:
    faulty.url = "http://127.0.0.1:1"
    with pytest.raises(UnavailableError, match="s3://some-bucket"):
        faulty_backend.run(operation)


def test_a_body_that_ends_early_is_fetched_again(faulty_backend: Backend, faulty: FaultyServer) -> None:
    short = Answer(200, b"bo", FOUND.headers, cut=2)
    faulty.respond = lambda method, path, number: short if number < 3 else FOUND

    async def body(store: ObjectStore) -> None:
        found = await store.get("a/b")
        assert found is not None
        assert found.body == b"body"
        assert found.last_modified == 1772445600

    faulty_backend.run(body)
    assert faulty.methods == ["GET"] * 4


def test_a_body_that_never_comes_whole_is_unavailable(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(200, b"bo", FOUND.headers, cut=2)
    with pytest.raises(UnavailableError, match="s3://some-bucket/archive/a/b"):
        faulty_backend.run(_get)
    assert faulty.methods == ["GET"] * 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(412, "PreconditionFailed"), PreconditionFailed),
        (error(404, "NoSuchKey"), PreconditionFailed),
        (error(409, "ConditionalRequestConflict"), Contended),
        (error(409, "OperationAborted"), Contended),
        (error(409, "ConcurrentModification"), Contended),
        (error(403, "AccessDenied"), AccessDeniedError),
        (error(404, "NoSuchBucket"), BucketNotFoundError),
        (error(501, "NotImplemented"), StoreError),
        (error(400, "InvalidArgument"), StoreError),
    ],
)
def test_a_conditional_put_that_is_refused_says_why(
    faulty_backend: Backend, faulty: FaultyServer, answer: Answer, expected: type[StoreError]
) -> None:
    faulty.respond = lambda method, path, number: answer
    with pytest.raises(expected) as raised:
        faulty_backend.run(_put_if)
    assert type(raised.value) is expected
    assert faulty.methods == ["PUT"]


@pytest.mark.parametrize("operation", ALL)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(403, "AccessDenied"), AccessDeniedError),
        (error(403, "InvalidAccessKeyId"), CredentialsError),
        (error(403, "SignatureDoesNotMatch"), CredentialsError),
        (error(400, "ExpiredToken"), CredentialsError),
        (error(404, "NoSuchBucket"), BucketNotFoundError),
        (error(404, "SomethingElse"), StoreError),
        (Answer(404, b"<html>no such page</html>"), StoreError),
        (error(400, "InvalidRequest"), StoreError),
        (error(405, "MethodNotAllowed"), StoreError),
    ],
)
def test_every_refusal_is_an_error_of_its_kind(
    faulty_backend: Backend, faulty: FaultyServer, operation: Operation, answer: Answer, expected: type[StoreError]
) -> None:
    faulty.respond = lambda method, path, number: answer

    async def body(store: ObjectStore) -> None:
        with pytest.raises(StorageError) as raised:
            await operation(store)
        if operation is _head and answer.status != 404:
            # A HEAD's answer has no body, so no code: only the status tells.
            assert isinstance(raised.value, StoreError)
        else:
            assert isinstance(raised.value, expected)
        assert "s3://some-bucket" in str(raised.value)
        assert str(answer.status) in str(raised.value)
        assert "testing" not in str(raised.value)

    faulty_backend.run(body)


def test_denied_says_that_the_key_may_not_be_there(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: error(403, "AccessDenied", "User: me is not authorized")
    with pytest.raises(AccessDeniedError) as raised:
        faulty_backend.run(_get)
    said = str(raised.value)
    for part in ("s3://some-bucket/archive/a/b", "get_object", "AccessDenied", "User: me", "s3:ListBucket"):
        assert part in said


def test_a_head_of_404_asks_whether_it_is_the_bucket(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: error(404, "NoSuchKey")

    async def body(store: ObjectStore) -> None:
        assert await store.head("a/b") is None
        assert await store.head("a/b") is None

    faulty_backend.run(body)
    # Once: the bucket is known then.
    assert faulty.methods == ["HEAD", "GET", "HEAD"]


def test_not_modified(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(304)

    async def body(store: ObjectStore) -> None:
        with pytest.raises(NotModified):
            await store.get("a/b", if_none_match='"e"')

    faulty_backend.run(body)
    assert faulty.requests[0][2]["If-None-Match"] == '"e"'


def test_keys_that_could_not_be_deleted_are_an_error(faulty_backend: Backend, faulty: FaultyServer) -> None:
    line = "<Error><Key>archive/a/c</Key><Code>{}</Code><Message>no</Message></Error>"
    for code, expected in [("AccessDenied", AccessDeniedError), ("InternalError", UnavailableError), ("X", StoreError)]:
        faulty.respond = lambda method, path, number, code=code: Answer(  # type: ignore[misc]  # bound on purpose
            200, f"<DeleteResult>{line.format(code)}</DeleteResult>".encode()
        )
        with pytest.raises(expected, match=r"s3://some-bucket/archive/a/c: .*1 of 2 keys failed"):
            faulty_backend.run(_delete_two)


def test_the_clock_is_the_servers(faulty_backend: Backend, faulty: FaultyServer) -> None:
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    faulty.respond = lambda method, path, number: Answer(
        200, page if method == "GET" else b"", {"ETag": '"e"', "Date": "Mon, 02 Mar 2026 10:00:00 GMT"}
    )

    async def body(store: ObjectStore) -> None:
        assert (await store.put("a/b", b"x")).date == 1772445600
        assert (await store.list("a/")).date == 1772445600

    faulty_backend.run(body)


def test_a_store_that_lists_in_disorder_is_refused(faulty_backend: Backend, faulty: FaultyServer) -> None:
    def page(*names: str) -> Answer:
        rows = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-03-02T10:00:00Z</LastModified></Contents>" for name in names
        )
        return Answer(200, f"<ListBucketResult><IsTruncated>true</IsTruncated>{rows}</ListBucketResult>".encode())

    async def body(store: ObjectStore) -> None:
        for names in (["archive/a/2", "archive/a/1"], ["archive/a/1", "archive/b/2"], ["other/a/1"]):
            faulty.respond = lambda method, path, number, names=names: page(*names)  # type: ignore[misc]  # the same
            with pytest.raises(StoreError, match="byte order"):
                await store.list("a/")
        # StartAfter ignored: paging would never end.
        faulty.respond = lambda method, path, number: page("archive/a/1", "archive/a/2")
        assert len((await store.list("a/")).objects) == 2
        with pytest.raises(StoreError, match="byte order"):
            await store.list("a/", after="a/2")

    faulty_backend.run(body)


def test_a_page_cut_before_its_first_key_is_followed(faulty_backend: Backend, faulty: FaultyServer) -> None:
    empty = "<IsTruncated>true</IsTruncated><NextContinuationToken>t0k</NextContinuationToken>"
    row = "<Contents><Key>archive/a/1</Key><LastModified>2026-03-02T10:00:00Z</LastModified></Contents>"
    faulty.respond = lambda method, path, number: Answer(
        200, f"<ListBucketResult>{row if 't0k' in path else empty}</ListBucketResult>".encode()
    )

    async def body(store: ObjectStore) -> None:
        page = await store.list("a/")
        assert [entry.key for entry in page.objects] == ["a/1"]
        assert not page.more

    faulty_backend.run(body)
    assert len(faulty.requests) == 2
