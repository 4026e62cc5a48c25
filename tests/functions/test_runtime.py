"""What the functions take from their runtime: boto3, the environment, no request at import; and a turn on S3."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from s3conv import InvalidInputError
from tests.functions.calls import ALICE, Chat, Invocation, conversation, fresh, says
from tests.servers.place import Place


def test_a_runtime_whose_boto3_is_too_old_says_so_at_import(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.__version__", "1.35.99")
    for name in ("chat", "maintenance"):
        with pytest.raises(RuntimeError, match=r"needs boto3 1\.36 or newer, this runtime has 1\.35\.99"):
            fresh(name)


@pytest.mark.parametrize("version", ["1.36.0", "1.100.2", "2.0.0"])
def test_a_boto3_that_is_new_enough_will_do(url: str, version: str) -> None:
    fresh("runtime").check_boto3(version)


def test_without_the_archives_url_the_import_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        monkeypatch.delenv("S3CONV_URL", raising=False)
        if value is not None:
            monkeypatch.setenv("S3CONV_URL", value)
        with pytest.raises(RuntimeError, match="S3CONV_URL is not set"):
            fresh("chat")


def test_a_url_or_window_that_cannot_be_used_is_an_error_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3CONV_URL", "https://bucket/prefix")
    with pytest.raises(InvalidInputError):
        fresh("chat")
    monkeypatch.setenv("S3CONV_URL", "memory://x")
    monkeypatch.setenv("S3CONV_ACTIVITY_WINDOW", "7200")
    with pytest.raises(InvalidInputError):
        fresh("chat")


def test_an_import_makes_the_client_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a request")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("S3CONV_URL", "s3://bucket/prefix")
    for name in ("chat", "maintenance"):
        module = fresh(name)
        client = module.ARCHIVE._context.store._transport._client
        assert client.meta.service_model.service_name == "s3"
        client.close()


@pytest.fixture
def on_s3(
    s3_place: Place, s3_endpoint: str | None, s3_keys: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Any]]:
    """Starts processes with a function on S3, as its environment would; their clients are closed afterwards."""
    for name, value in s3_keys.items():
        monkeypatch.setenv(name, value)
    if s3_endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("S3CONV_URL", f"s3://{s3_place.bucket}/{s3_place.prefix}")
    modules = []

    def start(name: str) -> Any:
        modules.append(fresh(name))
        return modules[-1]

    yield start
    for module in modules:
        module.ARCHIVE._context.store._transport._client.close()
        module.ARCHIVE.close()


def test_a_turn_on_s3_takes_four_requests_cold_and_two_warm_if_it_names_its_parent(
    on_s3: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert on_s3("maintenance").handler({}, Invocation())["finished"]
    first, path = Chat(on_s3("chat")), conversation("c", "messages")
    assert first(ALICE, "POST", path, says("one")).status == 201
    cold = Chat(on_s3("chat"))
    capsys.readouterr()
    assert cold(ALICE, "POST", path, says("two")).status == 201
    assert cold(ALICE, "POST", path, says("three", parent="0")).status == 201
    assert cold(ALICE, "POST", path, says("four")).status == 201
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["Operation"], line["Requests"]) for line in lines] == [("edit", 4), ("edit", 2), ("edit", 3)]
    # The first process has an older one in memory: the store refuses it, and what both say is there.
    assert first(ALICE, "POST", path, says("another", parent="")).status == 201
    assert cold(ALICE, "GET", conversation("c")).body["leaves"] == ["0.0.0", "1"]


def test_an_activity_window_makes_it_one(
    on_s3: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_s3("maintenance").handler({}, Invocation())
    monkeypatch.setenv("S3CONV_ACTIVITY_WINDOW", "600")
    chat, path = Chat(on_s3("chat")), conversation("c", "messages")
    chat(ALICE, "POST", path, says("one"))
    capsys.readouterr()
    chat(ALICE, "POST", path, says("two", parent=""))
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["Requests"] == 1


def test_a_kms_key_is_written_with(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1"
    monkeypatch.setenv("S3CONV_URL", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for given, expected in (("", None), (key, key)):
        monkeypatch.setenv("S3CONV_KMS_KEY_ID", given)
        options = fresh("runtime").store_options()
        assert options["kms_key_id"] == expected
        options["client"].close()
