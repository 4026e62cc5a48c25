"""An archive that was copied byte by byte to another kind of store is the same archive: ETags, dates and user metadata
are hints only."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from s3conv import Archive, ConversationState
from tests.servers.place import Place

USERS = 3


def start(number: int) -> ConversationState:
    state = ConversationState.start(f"c/{number:02} ü", system="Hi", metadata={"user_id": f"user-{number % USERS}"})
    state.add_message("user", f"question {number}")
    return state


def everything(archive: Archive) -> dict[str, Any]:
    """All that can be read of an archive, which has nothing wrong with it."""
    verified = archive.verify()
    assert verified.differences == []
    return {
        "verified": (verified.conversations, verified.deleted),
        "documents": sorted(document.line for document in archive.export()),
        "entries": sorted((one.conversation_id, one.revision, one.message_count) for one in archive.iterate()),
        "by user": [archive.count({"metadata.user_id": f"user-{number}"}) for number in range(USERS)],
        "newest": [one.conversation_id for one in archive.list(order="-updated_at", limit=5).items],
    }


def download(client: Any, place: Place, folder: Path) -> None:
    """Copy every object below a place into a folder, as any tool does: the bodies under their keys."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=f"{place.prefix}/"):
        for found in page["Contents"]:
            path = folder / found["Key"].removeprefix(f"{place.prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=place.bucket, Key=found["Key"])["Body"].read())


def upload(folder: Path, client: Any, bucket: str, prefix: str) -> None:
    """Copy every file of a folder to a place, but for what a local archive keeps for itself."""
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        if path.is_file() and not key.startswith(".s3conv/"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=path.read_bytes())


def test_from_s3_to_a_directory_and_back(
    s3_place: Place, s3_client: Any, s3_endpoint: str | None, s3_session: Any, tmp_path: Path
) -> None:
    first = Place(s3_place.bucket, f"{s3_place.prefix}/first")
    options: Any = {"session": s3_session, "endpoint_url": s3_endpoint}
    with Archive.create(first.url, partition_by="metadata.user_id", **options) as archive:
        archive.save_many([start(number) for number in range(12)])
        archive.maintain()
        archive.save_many([start(number) for number in range(12, 20)])  # these are not folded yet
        assert archive.delete("c/03 ü")
        loaded = archive.load("c/05 ü")
        assert loaded is not None
        with archive.edit("c/07 ü") as state:
            state.metadata["user_id"] = "user-0"  # it moves in the index
        before = everything(archive)
    folder = tmp_path / "copied here"
    download(s3_client, first, folder)

    with Archive.open(f"file://{tmp_path}/copied%20here") as archive:
        assert everything(archive) == before
        _go_on(archive, loaded)
        archive.maintain()
        between = everything(archive)
        loaded = archive.load("c/05 ü")
        assert loaded is not None
    assert len(between["documents"]) == 19
    upload(folder, s3_client, s3_place.bucket, f"{s3_place.prefix}/second")

    with Archive.open(f"{s3_place.url}/second", **options) as archive:
        assert everything(archive) == between
        _go_on(archive, loaded)
        archive.save(start(3))  # it was deleted: the revisions go on
        assert archive.maintain().finished
        after = everything(archive)
    revisions = {conversation_id: revision for conversation_id, revision, _ in after["entries"]}
    assert len(revisions) == 20
    assert revisions["c/03 ü"] == 3
    assert revisions["c/05 ü"] == 7


def _go_on(archive: Archive, loaded: ConversationState) -> None:
    """Save a state that was loaded before the archive was copied, so that its ETag is not that of any object here."""
    stale = copy.deepcopy(loaded)
    loaded.add_message("assistant", "saved by what was known before")
    entry = archive.save(loaded)  # nobody wrote in between: no conflict
    loaded.add_message("user", "and again")
    assert archive.save(loaded).revision == entry.revision + 1
    stale.add_message("assistant", "another branch")
    archive.save(stale, on_conflict="merge")
    merged = archive.load(loaded.conversation_id)
    assert merged is not None
    said = [leaf.message.content for leaf in merged.leaves()][-2:]
    assert sorted(map(str, said)) == ["and again", "another branch"]
