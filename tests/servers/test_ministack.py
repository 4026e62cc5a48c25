"""The tests' S3 server: it ends with who started it, and says how to get it where it is not there."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import ministack
from tests.servers.place import Given, given_by

STARTS_AND_WAITS = """
from tests.servers.ministack import ministack
with ministack() as url:
    print(url, flush=True)
    input()
"""


def test_it_ends_with_the_process_that_started_it_even_if_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_AND_WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ministack.PROJECT
    ) as starter:
        assert starter.stdout is not None
        url = urlsplit(starter.stdout.readline().decode().strip())
        assert url.hostname == "127.0.0.1"
        assert url.port is not None
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            starter.send_signal(signal.SIGKILL)
            assert _ends(connection)


def _ends(connection: socket.socket) -> bool:
    """Wait until the server's end of a connection is gone."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_without_its_environment_it_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ministack, "PYTHON", tmp_path / "python")
    with pytest.raises(RuntimeError, match=r"make test.*make \.venv-ministack/\.installed"), ministack.ministack():
        raise AssertionError("it started")


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack, "PYTHON", Path(sys.executable))  # where there is no MiniStack
    with pytest.raises(RuntimeError, match="No module named 'hypercorn'"), ministack.ministack():
        raise AssertionError("it started")


def test_another_store_is_named_by_variables() -> None:
    assert given_by({}) is None
    keys: dict[str, str | None] = {"aws_access_key_id": None, "aws_secret_access_key": None, "region_name": None}
    assert given_by({"S3CONV_TEST_S3_URL": "s3://chats/a/b/"}) == Given(None, "chats", "a/b", keys)
    assert given_by({"S3CONV_TEST_S3_URL": "s3://"}) == Given(None, "", "", keys)
    given = given_by(
        {
            "S3CONV_TEST_S3_URL": "s3://chats",
            "S3CONV_TEST_S3_ENDPOINT_URL": "http://127.0.0.1:1",
            "S3CONV_TEST_S3_KEY": "key",
            "S3CONV_TEST_S3_SECRET": "secret",
            "S3CONV_TEST_S3_REGION": "eu-west-3",
        }
    )
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "eu-west-3"}
    assert given == Given("http://127.0.0.1:1", "chats", "", keys)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"S3CONV_TEST_S3_KEY": "key"}, "S3CONV_TEST_S3_KEY without S3CONV_TEST_S3_URL"),
        ({"S3CONV_TEST_S3_URL": "chats"}, "'chats': expected s3://"),
        ({"S3CONV_TEST_S3_URL": "s3://b", "S3CONV_TEST_S3_ENDPOINT": "x"}, "S3CONV_TEST_S3_ENDPOINT: expected"),
    ],
)
def test_variables_that_do_not_fit_together_are_refused(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        given_by(variables)
