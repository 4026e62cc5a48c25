"""What S3Store sends, how often, and what it makes of answers that are no success."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Callable, Coroutine
from typing import Any
from zlib import crc32

import pytest

from s3conv.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.store import Contended, NotModified, ObjectStore, PreconditionFailed, RangeNotSatisfiable
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


def _part(body: bytes, content_range: str | None, status: int = 206, more: dict[str, str] | None = None) -> Answer:
    """An answer to a GET of a range."""
    said = {"Content-Range": content_range} if content_range is not None else {}
    return Answer(status, body, {**FOUND.headers, **said, **(more or {})})


Operation = Callable[[ObjectStore], Coroutine[Any, Any, object]]


async def _get(store: ObjectStore) -> object:
    return await store.get("a/b")


async def _get_span(store: ObjectStore) -> object:
    return await store.get("a/b", span=(1, 2))


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


ALL: list[Operation] = [_get, _get_span, _head, _put, _put_if, _list, _delete, _delete_two]


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
@pytest.mark.parametrize("operation", [_get, _get_span, _head, _put, _list, _delete, _delete_two])
def test_any_other_request_is_retried(
    faulty_backend: Backend, faulty: FaultyServer, outage: Answer, operation: Operation
) -> None:
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    fine = Answer(200, page if operation is _list else b"", FOUND.headers)
    if operation is _delete_two:
        fine = Answer(200, b"<DeleteResult/>")
    if operation is _get_span:
        fine = _part(b"od", "bytes 1-2/4")
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


@pytest.mark.parametrize("operation", [_get, _get_span])
def test_a_refusal_that_ends_early_is_asked_for_again(
    faulty_backend: Backend, faulty: FaultyServer, operation: Operation
) -> None:
    whole = error(404, "NoSuchKey")
    short = Answer(404, whole.body[:40], whole.headers, cut=len(whole.body) - 40)
    faulty.respond = lambda method, path, number: short if number < 3 else whole

    async def body(store: ObjectStore) -> None:
        assert await operation(store) is None
        faulty.respond = lambda method, path, number: short
        with pytest.raises(StoreError, match="s3://some-bucket/archive/a/b"):  # what is missing, nobody has said
            await operation(store)

    faulty_backend.run(body)
    assert faulty.methods == ["GET"] * 8


@pytest.mark.parametrize(
    ("status", "code", "definite"),
    [
        (412, "PreconditionFailed", PreconditionFailed),
        (403, "AccessDenied", AccessDeniedError),
        (503, "SlowDown", UnavailableError),
    ],
)
def test_a_refusal_of_a_conditional_put_that_ends_early_is_no_other_answer(
    faulty_backend: Backend, faulty: FaultyServer, status: int, code: str, definite: type[Exception]
) -> None:
    """Some versions of the SDK take the status line for the answer, others take the whole for none."""
    whole = error(status, code)
    faulty.respond = lambda method, path, number: Answer(
        status, whole.body[:40], whole.headers, cut=len(whole.body) - 40
    )
    with pytest.raises((UnavailableError, definite), match="s3://some-bucket/archive/a/b"):
        faulty_backend.run(_put_if)
    assert faulty.methods == ["PUT"]


def test_a_body_that_is_not_what_its_checksum_says_is_not_taken(faulty_backend: Backend, faulty: FaultyServer) -> None:
    other = {"x-amz-checksum-crc32": b64encode(crc32(b"another body").to_bytes(4, "big")).decode()}
    faulty.respond = lambda method, path, number: Answer(200, b"body", {**FOUND.headers, **other})
    with pytest.raises(UnavailableError, match="s3://some-bucket/archive/a/b"):
        faulty_backend.run(_get)
    assert faulty.methods == ["GET"] * 4


def test_a_range_is_asked_for_and_given(faulty_backend: Backend, faulty: FaultyServer) -> None:
    # Some stores send the checksum of the whole with it.
    whole = {"x-amz-checksum-crc32": b64encode(crc32(b"whole body").to_bytes(4, "big")).decode()}
    answers = [
        _part(b"ole", "bytes 2-4/10"),
        _part(b"ole", "bytes 2-4/*"),
        _part(b"ole", "bytes 2-4/10", more=whole),
        _part(b"whole body", None, status=200),
        _part(b"whole body", None, status=200, more=whole),
    ]
    faulty.respond = lambda method, path, number: answers[number]

    async def body(store: ObjectStore) -> None:
        for _ in answers:
            found = await store.get("a/b", span=(2, 3))
            assert found is not None
            assert found.body == b"ole"
            assert found.etag == ""
            assert found.last_modified == 1772445600

    faulty_backend.run(body)
    assert faulty.methods == ["GET"] * len(answers)
    for _, _, headers in faulty.requests:
        assert headers["Range"] == "bytes=2-4"
        assert "x-amz-checksum-mode" not in {name.lower() for name in headers}


@pytest.mark.parametrize(
    "answer",
    [
        error(416, "InvalidRange", "The requested range is not satisfiable"),
        Answer(416, b"", {"Content-Range": "bytes */4"}),
        Answer(416, b"<html>no</html>"),
        error(400, "InvalidRange"),
        _part(b"dy", "bytes 2-3/4"),
        _part(b"", "bytes 2-1/2"),
        _part(b"body", None, status=200),
        _part(b"", None, status=200),
    ],
)
def test_an_object_that_ends_before_the_range_does(
    faulty_backend: Backend, faulty: FaultyServer, answer: Answer
) -> None:
    faulty.respond = lambda method, path, number: answer

    async def body(store: ObjectStore) -> None:
        with pytest.raises(RangeNotSatisfiable, match=r"s3://some-bucket/archive/a/b.*cut short"):
            await store.get("a/b", span=(2, 3))

    faulty_backend.run(body)
    assert faulty.methods == ["GET"]


@pytest.mark.parametrize(
    "answer",
    [
        _part(b"ole", None),
        _part(b"ole", None, more={"Content-Type": "multipart/byteranges; boundary=x"}),
        _part(b"ole", "bytes 2-4"),
        _part(b"ole", "octets 2-4/10"),
        _part(b"ole", "bytes */10"),
        _part(b"ole", "bytes 2-6/10"),
        _part(b"o", "bytes 2-3/4"),
        _part(b"le ", "bytes 3-5/10"),
        _part(b"hol", "bytes 1-3/10"),
        _part(b"ol", "bytes 2-4/10"),
        _part(b"ole ", "bytes 2-4/10"),
        _part(b"ol", "bytes 2-3/10"),
        _part(b"ol", "bytes 2-3/*"),
        _part(b"ole b", "bytes 2-6/10"),
        _part(b"whole body", "bytes 0-9/10"),
        _part(b"whole body", "bytes 0-9/10", status=200),
        _part(b"ole", "bytes 3-5/10", status=200),
        _part(b"whole body", None, status=203),
        _part(b"", None, status=204),
    ],
)
def test_an_answer_that_is_not_the_range_is_refused(
    faulty_backend: Backend, faulty: FaultyServer, answer: Answer
) -> None:
    faulty.respond = lambda method, path, number: answer

    async def body(store: ObjectStore) -> None:
        with pytest.raises(StoreError, match="s3://some-bucket/archive/a/b: asked for bytes 2 to 4") as raised:
            await store.get("a/b", span=(2, 3))
        assert type(raised.value) is StoreError

    faulty_backend.run(body)


@pytest.mark.parametrize("status", [206, 200])
def test_a_range_that_ends_early_is_fetched_again(faulty_backend: Backend, faulty: FaultyServer, status: int) -> None:
    fine = _part(b"ole", "bytes 2-4/10") if status == 206 else _part(b"whole body", None, status=200)
    short = Answer(fine.status, fine.body[:-1], fine.headers, cut=1)
    faulty.respond = lambda method, path, number: short if number < 3 else fine

    async def body(store: ObjectStore) -> None:
        found = await store.get("a/b", span=(2, 3))
        assert found is not None
        assert found.body == b"ole"
        faulty.respond = lambda method, path, number: short
        with pytest.raises(UnavailableError, match="s3://some-bucket/archive/a/b"):
            await store.get("a/b", span=(2, 3))

    faulty_backend.run(body)
    assert [headers["Range"] for _, _, headers in faulty.requests] == ["bytes=2-4"] * 8


def test_a_range_of_what_is_not_there_is_none(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: error(404, "NoSuchKey")

    async def body(store: ObjectStore) -> None:
        assert await _get_span(store) is None

    faulty_backend.run(body)


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


@pytest.mark.parametrize("operation", [_get, _head, _put, _put_if])
def test_an_answer_without_an_etag_is_unavailable(
    faulty_backend: Backend, faulty: FaultyServer, operation: Operation
) -> None:
    faulty.respond = lambda method, path, number: Answer(200, b"" if method == "PUT" else b"body")
    with pytest.raises(UnavailableError, match="s3://some-bucket/archive/a/b: the store's answer has no ETag"):
        faulty_backend.run(operation)


def test_a_range_needs_no_etag(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(206, b"od", {"Content-Range": "bytes 1-2/4"})

    async def body(store: ObjectStore) -> None:
        found = await store.get("a/b", span=(1, 2))
        assert found is not None
        assert found.body == b"od"

    faulty_backend.run(body)


def test_a_store_that_lists_in_disorder_is_refused(faulty_backend: Backend, faulty: FaultyServer) -> None:
    def page(*names: str) -> Answer:
        rows = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-03-02T10:00:00Z</LastModified><Size>7</Size></Contents>"
            for name in names
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
    row = "<Contents><Key>archive/a/1</Key><LastModified>2026-03-02T10:00:00Z</LastModified><Size>7</Size></Contents>"
    faulty.respond = lambda method, path, number: Answer(
        200, f"<ListBucketResult>{row if 't0k' in path else empty}</ListBucketResult>".encode()
    )

    async def body(store: ObjectStore) -> None:
        page = await store.list("a/")
        assert [(entry.key, entry.size) for entry in page.objects] == [("a/1", 7)]
        assert not page.more

    faulty_backend.run(body)
    assert len(faulty.requests) == 2


def test_nothing_is_unpacked_behind_our_back(faulty_backend: Backend, faulty: FaultyServer) -> None:
    """A Content-Encoding is part of the object's description, and no reason to unpack it."""
    packed = gzip.compress(b" " * 10_000_000)
    faulty.respond = lambda method, path, number: Answer(
        200, packed, {"ETag": '"e"', "Content-Encoding": "gzip", "Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"}
    )

    async def body(store: ObjectStore) -> None:
        found = await store.get("a/b")
        assert found is not None
        assert found.body == packed

    faulty_backend.run(body)
