"""Which S3 store the tests use, and where in it.

By default it is MiniStack, started by the tests. These variables name another one:

S3CONV_TEST_S3_URL: `s3://bucket` or `s3://bucket/prefix`, where each test takes a fresh prefix of its own and deletes
    what lies there afterwards; or `s3://` alone, where the tests make a bucket and delete it.
S3CONV_TEST_S3_ENDPOINT_URL: the store's address, if it is not AWS.
S3CONV_TEST_S3_KEY, S3CONV_TEST_S3_SECRET: credentials; without them, those that boto3 finds.
S3CONV_TEST_S3_REGION: the region; without it, the one that boto3 finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4


@dataclass(frozen=True)
class Given:
    """A store to test. `endpoint` None: AWS. `bucket` "": make one. What is None of `credentials`, boto3 finds."""

    endpoint: str | None
    bucket: str
    prefix: str
    credentials: Mapping[str, Any]


def given_by(environment: Mapping[str, str]) -> Given | None:
    """The store that the variables name, or None if they name none.

    Raises:
        ValueError: they do not fit together; says how.
    """
    names = [name for name in environment if name.startswith("S3CONV_TEST_S3_")]
    url = environment.get("S3CONV_TEST_S3_URL")
    if url is None:
        if names:
            raise ValueError(f"{', '.join(sorted(names))} without S3CONV_TEST_S3_URL: set that to s3://bucket/prefix")
        return None
    if not url.startswith("s3://"):
        raise ValueError(f"S3CONV_TEST_S3_URL is {url!r}: expected s3://bucket/prefix, or s3:// to make buckets")
    known = {"URL", "ENDPOINT_URL", "KEY", "SECRET", "REGION"}
    if unknown := sorted(name for name in names if name.removeprefix("S3CONV_TEST_S3_") not in known):
        raise ValueError(f"{', '.join(unknown)}: expected S3CONV_TEST_S3_ and one of {', '.join(sorted(known))}")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    credentials = {
        "aws_access_key_id": environment.get("S3CONV_TEST_S3_KEY"),
        "aws_secret_access_key": environment.get("S3CONV_TEST_S3_SECRET"),
        "region_name": environment.get("S3CONV_TEST_S3_REGION"),
    }
    return Given(environment.get("S3CONV_TEST_S3_ENDPOINT_URL"), bucket, prefix.strip("/"), credentials)


@dataclass(frozen=True)
class Place:
    """A fresh prefix of one test: nothing lies below it, and what the test leaves there is deleted."""

    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """The place as the URL of an archive."""
        return f"s3://{self.bucket}/{self.prefix}"


def empty(client: Any, bucket: str, prefix: str) -> None:
    """Delete every object, and every version of one, below a prefix."""
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if found:
            names = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            client.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True})


@contextmanager
def fresh_bucket(client: Any) -> Iterator[str]:
    """Make a bucket, and delete it with all that is in it afterwards."""
    name = f"s3conv-test-{uuid4().hex}"
    region = client.meta.region_name
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=name, **where)
    try:
        yield name
    finally:
        empty(client, name, "")
        client.delete_bucket(Bucket=name)
