"""An S3 store for every test that asks for one, and sessions with the credentials that open it.

It is MiniStack, started as a child on loopback; or the store that S3CONV_TEST_S3_URL names, see `servers/place.py`.
Nothing stands in for either: where it is missing, the tests fail and say what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import boto3
import pytest
from hypothesis import HealthCheck, settings

from tests.servers.ministack import ministack
from tests.servers.place import Given, Place, empty, fresh_bucket, given_by

# How fast a machine is must not decide whether a test passes. Here, because it holds for what is imported afterwards.
settings.register_profile("s3conv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("s3conv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks the S3 store under test for anything: `-m s3` runs that alone."""
    for item in items:
        if not isinstance(item, pytest.Function) or "faulty" in item.fixturenames:
            continue
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "s3_given" in item.fixturenames or any(isinstance(one, str) and one.startswith("s3") for one in parameters):
            item.add_marker("s3")


ANY_CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}


@pytest.fixture(scope="session")
def s3_given() -> Iterator[Given]:
    """The store under test: the one that the environment names, or a MiniStack that lives as long as the session."""
    given = given_by(os.environ)
    if given is not None:
        yield given
        return
    with ministack() as url:
        yield Given(url, "", "", ANY_CREDENTIALS)


@pytest.fixture(scope="session")
def s3_endpoint(s3_given: Given) -> str | None:
    """The store's address; None if it is AWS."""
    return s3_given.endpoint


@pytest.fixture(scope="session")
def s3_session(s3_given: Given) -> boto3.Session:
    """A boto3 session with the store's credentials."""
    return boto3.Session(**s3_given.credentials)


@pytest.fixture(scope="session")
def aio_session(s3_given: Given) -> Any:
    """An aioboto3 session with the store's credentials. One for all: each reads the SDK's model of S3 anew."""
    aioboto3 = pytest.importorskip("aioboto3", reason="aioboto3 is not installed")
    return aioboto3.Session(**s3_given.credentials)


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str | None, s3_session: boto3.Session) -> Iterator[Any]:
    """A plain boto3 client, to look into a bucket past s3conv."""
    client = s3_session.client("s3", endpoint_url=s3_endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def s3_keys(s3_session: boto3.Session) -> Mapping[str, str]:
    """The store's credentials and region as variables, for a process that is started."""
    found = s3_session.get_credentials()
    assert found is not None
    keys = found.get_frozen_credentials()
    assert keys.access_key is not None
    assert keys.secret_key is not None
    variables = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    if keys.token:
        variables["AWS_SESSION_TOKEN"] = keys.token
    return variables


@pytest.fixture(scope="session")
def _shared_bucket(s3_given: Given, s3_client: Any) -> Iterator[str]:
    if s3_given.bucket:
        yield s3_given.bucket
        return
    with fresh_bucket(s3_client) as name:
        yield name


@pytest.fixture
def s3_place(s3_given: Given, s3_client: Any, _shared_bucket: str) -> Iterator[Place]:
    """A fresh prefix in the bucket under test."""
    place = Place(_shared_bucket, f"{s3_given.prefix}/{uuid4().hex}".lstrip("/"))
    yield place
    empty(s3_client, place.bucket, f"{place.prefix}/")


@pytest.fixture
def s3_bucket(s3_given: Given, s3_client: Any) -> Iterator[str]:
    """A fresh bucket, for the few tests that need the whole of one."""
    if s3_given.bucket:
        pytest.skip("needs a bucket of its own, and S3CONV_TEST_S3_URL gives one for all tests")
    with fresh_bucket(s3_client) as name:
        yield name
