"""An S3 server on loopback for every test that asks for one, and sessions with credentials that open nothing else.

The server is a mock: it says whether s3conv speaks the protocol, not whether a store keeps it. For that, run the same
tests against a real one: S3CONV_TEST_S3_ENDPOINT is its URL, S3CONV_TEST_S3_KEY and S3CONV_TEST_S3_SECRET open it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest

_SERVER = """
import logging
import sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel("ERROR")  # no line for each request
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
_CREDENTIALS: dict[str, Any] = {
    "aws_access_key_id": os.environ.get("S3CONV_TEST_S3_KEY", "testing"),
    "aws_secret_access_key": os.environ.get("S3CONV_TEST_S3_SECRET", "testing"),
    "region_name": "us-east-1",
}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server that lives as long as the test session."""
    if given := os.environ.get("S3CONV_TEST_S3_ENDPOINT"):
        yield given
        return
    # Its own process, which ends with the pipe to it: in this one it would hook itself into botocore.
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        yield f"http://{host}:{port}"
        server.kill()


@pytest.fixture(scope="session")
def s3_session() -> boto3.Session:
    """A boto3 session with the test server's credentials; nothing of this machine's configuration counts."""
    return boto3.Session(**_CREDENTIALS)


@pytest.fixture
def aio_session() -> Any:
    """An aioboto3 session with the test server's credentials."""
    aioboto3 = pytest.importorskip("aioboto3", reason="aioboto3 is not installed")
    return aioboto3.Session(**_CREDENTIALS)


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str, s3_session: boto3.Session) -> Iterator[Any]:
    """A plain boto3 client, to look into a bucket past s3conv."""
    client = s3_session.client("s3", endpoint_url=s3_endpoint)
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_client: Any) -> str:
    """The name of a fresh bucket."""
    name = f"s3conv-test-{uuid4().hex}"
    s3_client.create_bucket(Bucket=name)
    return name
