"""`open_store`: URLs, options, and what opening does not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from s3conv.bridge import run_sync
from s3conv.errors import InvalidInputError, StorageError
from s3conv.store import open_store
from s3conv.store.local import LocalStore


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///var/chats", "/var/chats"),
        ("file:///var/chats/", "/var/chats"),
        ("file://localhost/var/chats", "/var/chats"),
        ("file:///var/my%20chats/%C3%A4%23%3F", "/var/my chats/ä#?"),
        ("file:///var/my chats", "/var/my chats"),
        ("file:///", "/"),
    ],
)
def test_file_urls(url: str, root: str) -> None:
    store = open_store(url)
    assert isinstance(store, LocalStore)
    assert (store.root, store.url) == (root, url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chats",
        "/var/chats",
        "s3:bucket/x",
        "S3://bucket/x",
        "http://bucket/x",
        "ftp://x",
        "file://host/var/chats",
        "file://chats",
        "file://",
        "file:///a?b",
        "file:///a#b",
        "file:///a%00b",
        "s3://",
        "s3:///prefix",
        "s3://b",
        "s3://buck et/x",
        "s3://bucket//x",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "s3://bucket/./b",
        "s3://bucket/a\n",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/x",
        "s3://fast--use1-az4--x-s3/x",
        "memory://a//b",
        "memory:///a",
        "memory://a/",
    ],
)
def test_urls_that_name_no_archive(url: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        open_store(url)
    assert repr(url) in str(raised.value)


def test_what_is_no_name_of_a_bucket_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'Bad_Bucket!' is no bucket's name"):
        open_store("s3://Bad_Bucket!/x")


@pytest.mark.parametrize("url", ["file:///x", "memory://x", "s3://bucket/x"])
def test_options_that_are_not_known_are_named(url: str) -> None:
    options: dict[str, Any] = {"endpont_url": "http://x"}
    with pytest.raises(InvalidInputError, match="endpont_url") as raised:
        open_store(url, **options)
    assert ("endpoint_url" in str(raised.value)) is url.startswith("s3")


@pytest.mark.parametrize("url", ["file:///x", "memory://x"])
def test_options_of_s3_are_refused_elsewhere(url: str) -> None:
    with pytest.raises(InvalidInputError, match="region"):
        open_store(url, region="eu-west-1")
    open_store(url, region=None)


def test_options_of_the_client_are_refused_beside_a_client(s3_session: boto3.Session) -> None:
    client = s3_session.client("s3")
    wrong: list[dict[str, Any]] = [
        {"endpoint_url": "http://x"},
        {"region": "eu-west-1"},
        {"session": s3_session},
        {"addressing_style": "path"},
        {"fan_out": 5},
    ]
    for options in wrong:
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            open_store("s3://bucket/x", client=client, **options)
    open_store("s3://bucket/x", client=client, kms_key_id="k", expected_bucket_owner="123456789012")
    client.close()


def test_clients_of_another_kind_are_refused(s3_session: boto3.Session) -> None:
    for client in (s3_session.client("sts"), s3_session, "client"):
        with pytest.raises(InvalidInputError, match="boto3 S3 client"):
            open_store("s3://bucket/x", client=client)
        with pytest.raises(InvalidInputError, match="aioboto3 S3 client"):
            open_store("s3://bucket/x", asynchronous=True, client=client)
    with pytest.raises(InvalidInputError, match="aioboto3 S3 client"):
        open_store("s3://bucket/x", asynchronous=True, client=s3_session.client("s3"))


def test_an_endpoint_that_is_no_url_is_an_invalid_input(s3_session: boto3.Session) -> None:
    store = open_store("s3://bucket/x", session=s3_session, endpoint_url="not a url")
    with pytest.raises(InvalidInputError, match="not a url"):
        run_sync(store.get("k/a"))


def test_fan_out_must_be_positive() -> None:
    with pytest.raises(InvalidInputError, match="fan_out"):
        open_store("s3://bucket/x", fan_out=0)


def test_memory_archives_are_one_per_name() -> None:
    run_sync(open_store("memory://test-open").put("k/a", b"1"))
    assert run_sync(open_store("memory://test-open").get("k/a")) is not None
    assert run_sync(open_store("memory://test-open-2").get("k/a")) is None
    nameless = open_store("memory://")
    run_sync(nameless.put("k/a", b"1"))
    assert run_sync(open_store("memory://").get("k/a")) is None


def test_enclosing_memory_archives() -> None:
    run_sync(open_store("memory://outer").put("s3conv.json", b"{}"))
    run_sync(open_store("memory://outer/mid").put("other.json", b"{}"))
    inner = open_store("memory://outer/mid/inner")
    run_sync(inner.put("s3conv.json", b"{}"))
    assert run_sync(inner.enclosing("s3conv.json")) == ["memory://outer"]
    assert run_sync(open_store("memory://").enclosing("s3conv.json")) == []


def test_opening_loads_no_sdk_that_the_url_does_not_need() -> None:
    script = (
        "import sys; from s3conv.store import open_store; open_store('memory://x'); open_store('file:///x');"
        "loaded = {'boto3', 'botocore', 'aioboto3', 'aiobotocore', 'aiohttp'} & set(sys.modules);"
        "assert not loaded, loaded;"
        "open_store('s3://bucket/x');"
        "assert not {'aioboto3', 'aiobotocore', 'aiohttp'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_without_aioboto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aioboto3", None)
    with pytest.raises(StorageError, match=r"pip install '\.\[aio\]'"):
        open_store("s3://bucket/x", asynchronous=True)


def test_opening_does_no_io(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/archive")
    open_store("s3://bucket/x", endpoint_url="http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []
