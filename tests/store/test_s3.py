"""What only S3Store has: what it puts on the wire, whose client it uses, and how it opens and closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from s3conv.bridge import run_sync
from s3conv.errors import (
    BucketNotFoundError,
    CredentialsError,
    InvalidInputError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.store import ObjectStore, open_store
from tests.servers.place import Place
from tests.store.conftest import Backend
from tests.store.faulty_server import Answer, FaultyServer

EVERY_OPERATION = {"PutObject", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject", "DeleteObjects"}


async def _everything(store: ObjectStore) -> None:
    etag = (await store.put("k/a.json.zst", b"1", if_none_match="*")).etag
    await store.put("k/a.json.zst", b"2", if_match=etag)
    await store.put("k/b.json", b"3")
    await store.put("k/c", b"")
    await store.get("k/b.json")
    await store.head("k/b.json")
    await store.list("k/", after="k/a")
    await store.enclosing("s3conv.json")
    await store.delete(["k/b.json"])
    await store.delete(["k/a.json.zst", "k/c"])


ATTEMPTS: list[Callable[[ObjectStore], Coroutine[Any, Any, object]]] = [
    lambda store: store.get("k/a"),
    lambda store: store.head("k/a"),
    lambda store: store.put("k/a", b"1"),
    lambda store: store.put("k/a", b"1", if_none_match="*"),
    lambda store: store.put("k/a", b"1", if_match='"e"'),
    lambda store: store.list("k/"),
    lambda store: store.delete(["k/a"]),
    lambda store: store.delete(["k/a", "k/b"]),
    lambda store: store.enclosing("s3conv.json"),
]
"""Every operation, each by itself."""


def _record(client: Any) -> list[tuple[str, dict[str, Any]]]:
    """The parameters of every request from here on."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        sent.append((model.name, dict(params)))

    client.meta.events.register("provide-client-params.s3", note)
    return sent


def _with_client(
    kind: str, request: pytest.FixtureRequest, body: Callable[[ObjectStore, Any], Any], **options: Any
) -> None:
    """Run `body` over a store that was given a client, and check afterwards that the client is still open."""
    endpoint: str | None = request.getfixturevalue("s3_endpoint")
    place: Place = request.getfixturevalue("s3_place")
    config: dict[str, Any] = {"max_pool_connections": 7}
    if kind == "s3-boto3":
        client = request.getfixturevalue("s3_session").client("s3", endpoint_url=endpoint, config=Config(**config))
        store = open_store(f"{place.url}/outer/archive", client=client, **options)
        run_sync(body(store, client))
        run_sync(store.close())
        client.list_objects_v2(Bucket=place.bucket)
        client.close()
        return

    session = request.getfixturevalue("aio_session")

    async def whole() -> None:
        from aiobotocore.config import AioConfig

        async with session.client("s3", endpoint_url=endpoint, config=AioConfig(**config)) as client:
            store = open_store(f"{place.url}/outer/archive", asynchronous=True, client=client, **options)
            await body(store, client)
            await store.close()
            await client.list_objects_v2(Bucket=place.bucket)

    asyncio.run(whole())


KINDS = pytest.mark.parametrize("kind", ["s3-boto3", "s3-aioboto3"])


@KINDS
def test_an_injected_client_is_used_and_left_open(kind: str, request: pytest.FixtureRequest) -> None:
    async def body(store: ObjectStore, client: Any) -> None:
        sent = _record(client)
        assert store.fan_out == 7
        await _everything(store)
        assert {name for name, _ in sent} == EVERY_OPERATION

    _with_client(kind, request, body)


@KINDS
def test_owner_and_key_are_sent(kind: str, request: pytest.FixtureRequest) -> None:
    async def body(store: ObjectStore, client: Any) -> None:
        sent = _record(client)
        for attempt in ATTEMPTS:
            with suppress(StorageError):  # a real store has no such owner, and no such key
                await attempt(store)
        assert {name for name, _ in sent} == EVERY_OPERATION
        for name, parameters in sent:
            assert parameters["ExpectedBucketOwner"] == "123456789012"
            encryption = (parameters.get("ServerSideEncryption"), parameters.get("SSEKMSKeyId"))
            assert encryption == (("aws:kms", "my-key") if name == "PutObject" else (None, None))

    _with_client(kind, request, body, kms_key_id="my-key", expected_bucket_owner="123456789012")


@KINDS
def test_objects_say_what_they_hold(kind: str, request: pytest.FixtureRequest, s3_client: Any, s3_place: Place) -> None:
    async def body(store: ObjectStore, client: Any) -> None:
        for name in (*wanted, "d"):
            await store.put(f"k/{name}", b"1")

    wanted = {
        "a.json.zst": "application/zstd",
        "b.jsonl.zst": "application/zstd",
        "c.json": "application/json",
        "e.jsonl": "text/plain; charset=utf-8",
        "f.md": "text/markdown; charset=utf-8",
        "g.html": "text/html; charset=utf-8",
    }
    _with_client(kind, request, body)
    for name, content_type in wanted.items():
        head = s3_client.head_object(Bucket=s3_place.bucket, Key=f"{s3_place.prefix}/outer/archive/k/{name}")
        assert head["ContentType"] == content_type
        assert "ContentEncoding" not in head


def test_nothing_is_chunked_over_tls(s3_session: boto3.Session) -> None:
    client: Any = s3_session.client("s3", config=Config(signature_version="s3v4"))
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, HTTPHeaders.from_dict({"etag": '"e"'}), _Raw())

    client.meta.events.register("before-send.s3", answer)
    run_sync(open_store("s3://bucket/x", client=client).put("k/a", b"hello", if_match='"e"'))
    assert sent[0].url.startswith("https://")
    headers = {name.lower(): value for name, value in sent[0].headers.items()}
    assert "content-encoding" not in headers
    assert "x-amz-trailer" not in headers
    assert headers["x-amz-checksum-crc32"] == b"NhCmhg=="
    client.close()


class _Raw:
    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return []


def test_the_users_own_requests_are_sent_as_before(
    faulty: FaultyServer, s3_session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    client = s3_session.client("s3", endpoint_url=faulty.url, config=Config(retries={"max_attempts": 2}))
    stores = [open_store("s3://bucket/x", client=client) for _ in range(2)]
    faulty.respond = lambda method, path, number: Answer(500)
    for store in stores:
        with pytest.raises(UnavailableError):
            run_sync(store.put("k/a", b"1", if_match='"e"'))
    assert len(faulty.requests) == 2
    with pytest.raises(client.exceptions.ClientError, match="500"):
        client.put_object(Bucket="bucket", Key="k", Body=b"1", IfMatch='"e"')
    assert len(faulty.requests) == 5
    asks = ["Expect" in headers for _, _, headers in faulty.requests]
    assert asks == [False, False, True, True, True]
    client.close()


def test_the_users_own_ranges_still_ask_for_a_checksum(faulty: FaultyServer, s3_session: boto3.Session) -> None:
    client = s3_session.client("s3", endpoint_url=faulty.url)
    faulty.respond = lambda method, path, number: Answer(200, b"body", {"ETag": '"e"'})
    store = open_store("s3://bucket/x", client=client)
    run_sync(store.get("k/a"))
    run_sync(store.get("k/a", span=(0, 1)))
    client.get_object(Bucket="bucket", Key="k", Range="bytes=0-0")["Body"].close()
    asks = ["x-amz-checksum-mode" in {name.lower() for name in headers} for _, _, headers in faulty.requests]
    assert asks == [True, False, True]
    client.close()


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
@pytest.mark.parametrize("answer", [Answer(drop=True), Answer(503)])
def test_no_retry_mode_sends_a_conditional_put_twice(
    faulty: FaultyServer, s3_session: boto3.Session, mode: Any, answer: Answer
) -> None:
    client = s3_session.client("s3", endpoint_url=faulty.url, config=Config(retries={"mode": mode, "max_attempts": 5}))
    faulty.respond = lambda method, path, number: answer
    with pytest.raises(UnavailableError):
        run_sync(open_store("s3://bucket/x", client=client).put("k/a", b"1", if_none_match="*"))
    assert faulty.methods == ["PUT"]
    client.close()


def test_a_missing_bucket_is_named(s3_endpoint: str | None, s3_session: boto3.Session) -> None:
    for attempt in ATTEMPTS:
        store = open_store("s3://no-such-bucket-7d1e04b6/x/y", session=s3_session, endpoint_url=s3_endpoint)
        with pytest.raises(BucketNotFoundError, match="no-such-bucket-7d1e04b6"):
            run_sync(attempt(store))
        run_sync(store.close())


def test_no_credentials_say_so(s3_endpoint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store("s3://bucket/x", endpoint_url=s3_endpoint, region="us-east-1")
    with pytest.raises(CredentialsError, match="s3://bucket/x/k/a"):
        run_sync(store.put("k/a", b"1"))
    run_sync(store.close())


def test_a_profile_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsError, match="nobody"):
        run_sync(open_store("s3://bucket/x").get("k/a"))


def test_a_name_that_the_sdk_refuses_is_a_store_error(s3_store: ObjectStore) -> None:
    with pytest.raises(StoreError, match="put_object"):
        run_sync(s3_store.put("k/a", b"1", metadata={"name": "Zoë"}))


def test_the_pool_is_as_large_as_the_fan_out(
    s3_endpoint: str | None, s3_session: boto3.Session, s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    client = boto3.Session.client

    def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        made.append(client(self, *arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(boto3.Session, "client", watched)
    for options, size in [({}, 32), ({"fan_out": 5}, 5)]:
        keywords: Any = options
        store = open_store(f"{s3_place.url}/x", session=s3_session, endpoint_url=s3_endpoint, **keywords)
        assert store.fan_out == size
        run_sync(store.get("k/a"))
        run_sync(store.get("k/a"))
        run_sync(store.close())
        assert made[-1].meta.config.max_pool_connections == size
    assert len(made) == 2


def test_style_and_region_reach_the_client(faulty: FaultyServer, s3_session: boto3.Session) -> None:
    store = open_store(
        "s3://bucket/x", session=s3_session, endpoint_url=faulty.url, region="eu-west-3", addressing_style="path"
    )
    faulty.respond = lambda method, path, number: Answer(200, b"", {"ETag": '"e"'})
    run_sync(store.get("k/a"))
    run_sync(store.close())
    _, path, headers = faulty.requests[0]
    assert path == "/bucket/x/k/a"
    assert "/eu-west-3/s3/" in headers["Authorization"]


@pytest.mark.parametrize("prefix", ["", "/", "/plain", "/with space/and+plus", "/%41%/ä", "/slash/at/end/"])
def test_prefixes(
    s3_endpoint: str | None, s3_session: boto3.Session, s3_bucket: str, s3_client: Any, prefix: str
) -> None:
    s3_client.put_object(Bucket=s3_bucket, Key="k/zz-outside", Body=b"")
    store = open_store(f"s3://{s3_bucket}{prefix}", session=s3_session, endpoint_url=s3_endpoint)
    run_sync(store.put("k/%2E", b"1"))
    run_sync(store.put("k/b", b"1"))
    outside = ["k/zz-outside"] if not prefix.strip("/") else []
    assert [entry.key for entry in run_sync(store.list("k/")).objects] == ["k/%2E", "k/b", *outside]
    assert [entry.key for entry in run_sync(store.list("k/", after="k/%2E")).objects] == ["k/b", *outside]
    root = prefix.strip("/") + "/" if prefix.strip("/") else ""
    assert s3_client.head_object(Bucket=s3_bucket, Key=f"{root}k/b")
    run_sync(store.close())


def test_folders_that_a_console_made_are_not_listed(s3_store: ObjectStore, s3_client: Any, s3_place: Place) -> None:
    for name in ("archive/k/", "archive/k/sub/"):
        s3_client.put_object(Bucket=s3_place.bucket, Key=f"{s3_place.prefix}/{name}", Body=b"")
    run_sync(s3_store.put("k/a", b"1"))
    assert [entry.key for entry in run_sync(s3_store.list("k/")).objects] == ["k/a"]


def test_enclosing_looks_at_every_shorter_prefix(
    s3_endpoint: str | None, s3_session: boto3.Session, s3_bucket: str, s3_client: Any
) -> None:
    for name in ("s3conv.json", "a/b/s3conv.json", "a/b/c/s3conv.json", "a/bc/s3conv.json"):
        s3_client.put_object(Bucket=s3_bucket, Key=name, Body=b"{}")
    store = open_store(f"s3://{s3_bucket}/a/b/c", session=s3_session, endpoint_url=s3_endpoint)
    assert run_sync(store.enclosing("s3conv.json")) == [f"s3://{s3_bucket}/a/b", f"s3://{s3_bucket}"]
    assert run_sync(open_store(f"s3://{s3_bucket}", session=s3_session).enclosing("s3conv.json")) == []
    run_sync(store.close())


def test_enclosing_passes_over_what_it_may_not_read(faulty_backend: Backend, faulty: FaultyServer) -> None:
    faulty.respond = lambda method, path, number: Answer(403)

    async def body(store: ObjectStore) -> None:
        assert await store.enclosing("s3conv.json") == []

    faulty_backend.run(body)
    assert [path for _, path, _ in faulty.requests] == ["/some-bucket/s3conv.json"]


def test_many_tasks_make_one_client(
    aio_session: Any, s3_endpoint: str | None, s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    client = aio_session.client

    def watched(*arguments: Any, **keywords: Any) -> Any:
        made.append(keywords)
        return client(*arguments, **keywords)

    monkeypatch.setattr(aio_session, "client", watched)

    async def whole() -> None:
        store = open_store(
            f"{s3_place.url}/x", asynchronous=True, session=aio_session, endpoint_url=s3_endpoint, fan_out=9
        )
        assert not made
        await asyncio.gather(*(store.put(f"k/{number}", b"1") for number in range(20)))
        assert len((await store.list("k/")).objects) == 20
        await store.close()
        await store.close()

    asyncio.run(whole())
    assert len(made) == 1
    assert made[0]["config"].max_pool_connections == 9


def test_a_first_use_that_was_cancelled_is_begun_again(
    aio_session: Any, s3_endpoint: str | None, s3_place: Place
) -> None:
    async def whole() -> None:
        store = open_store(f"{s3_place.url}/x", asynchronous=True, session=aio_session, endpoint_url=s3_endpoint)
        first = asyncio.ensure_future(store.get("k/a"))
        second = asyncio.ensure_future(store.get("k/a"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second is None
        await store.close()

    asyncio.run(whole())


def test_another_event_loop_is_refused(aio_session: Any, s3_endpoint: str | None, s3_place: Place) -> None:
    store = open_store(f"{s3_place.url}/x", asynchronous=True, session=aio_session, endpoint_url=s3_endpoint)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.get("k/a"))
    with pytest.raises(InvalidInputError, match=r"another event loop.*asyncio\.Runner"):
        asyncio.run(store.get("k/a"))
    loop.run_until_complete(store.close())
    loop.close()


def test_a_client_that_was_not_entered_is_refused(aio_session: Any) -> None:
    async def whole() -> None:
        client = aio_session.client("s3")
        with pytest.raises(InvalidInputError, match="entered"):
            open_store("s3://bucket/x", asynchronous=True, client=client)
        async with client as entered:
            open_store("s3://bucket/x", asynchronous=True, client=entered)

    asyncio.run(whole())


def test_many_threads_share_one_store(s3_store: ObjectStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: run_sync(s3_store.put(f"k/{number:03}", b"1")), range(64)))
    assert len(run_sync(s3_store.list("k/")).objects) == 64
