"""Whether an archive may lie in a bucket with versioning is told by what the store does, not by what it is."""

from __future__ import annotations

from typing import Any

import pytest

from s3conv import Archive, ConversationState, NotFoundError, UnsafeStoreError


@pytest.fixture
def is_ceph(s3_client: Any) -> bool:
    answer = s3_client.list_buckets()
    return "ceph" in answer["ResponseMetadata"]["HTTPHeaders"].get("server", "").lower()


def test_a_versioned_bucket_is_refused_where_two_writers_can_win_in_it(
    s3_bucket: str, s3_client: Any, s3_endpoint: str | None, s3_session: Any, is_ceph: bool
) -> None:
    s3_client.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    url = f"s3://{s3_bucket}/prod"
    if is_ceph:
        with pytest.raises(UnsafeStoreError, match=r"updates would be lost: \d+ of 16 parallel writers .* all won"):
            Archive.create(url, session=s3_session, endpoint_url=s3_endpoint)
        assert "Contents" not in s3_client.list_objects_v2(Bucket=s3_bucket)
        with (
            Archive.open(url, session=s3_session, endpoint_url=s3_endpoint) as archive,
            pytest.raises(NotFoundError),
        ):
            archive.count()
        return
    with Archive.create(url, session=s3_session, endpoint_url=s3_endpoint) as archive:
        archive.save(ConversationState.start("c", system="Hi"))
        assert archive.delete("c")
        assert archive.maintain().finished
        assert archive.count() == 0


def test_the_same_bucket_without_versioning_is_taken(s3_bucket: str, s3_endpoint: str | None, s3_session: Any) -> None:
    with Archive.create(f"s3://{s3_bucket}/prod", session=s3_session, endpoint_url=s3_endpoint) as archive:
        archive.save(ConversationState.start("c", system="Hi"))
        assert archive.count() == 1
