"""What each role does with an archive: everything that its policy is for, once.

Law: `as_root` makes what the role meets, `as_role` sends what is recorded. A role that is refused anything that it
needs raises here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from s3conv import Archive, ConversationState, NotFoundError
from s3conv.exchange.exporting import Job, export_files
from s3conv.exchange.outputs import open_bucket
from s3conv.format.keys import MANIFEST

PARTITION_BY = "metadata.owner"


@dataclass(frozen=True)
class Opened:
    """Two ways to one archive that is not there yet, and where exports may go."""

    url: str
    exports: str
    root: Any
    role: Any
    kms_key_id: str

    def as_root(self) -> Archive:
        return Archive.open(self.url, client=self.root, kms_key_id=self.kms_key_id)

    def as_role(self) -> Archive:
        return Archive.open(self.url, client=self.role, kms_key_id=self.kms_key_id)

    def fill(self) -> None:
        """Make the archive, with conversations that are folded and one that is not."""
        Archive.create(self.url, partition_by=PARTITION_BY, client=self.root, kms_key_id=self.kms_key_id)
        with self.as_root() as archive:
            archive.save_many([chat(f"chat-{number}") for number in range(3)])
            archive.maintain()
            archive.save(chat("newest"))


def chat(conversation_id: str, owner: str = "alice") -> ConversationState:
    state = ConversationState.start(conversation_id, metadata={"owner": owner})
    state.add_message("user", "Hello")
    return state


def no_archive_yet(opened: Opened) -> None:
    """That there is none has to be told from that it may not be read."""
    with opened.as_role() as archive, pytest.raises(NotFoundError):
        archive.count()


def write(opened: Opened) -> None:
    """Load, save, edit and delete, and lose against other writers."""
    with opened.as_role() as archive, pytest.raises(NotFoundError):
        archive.load("first")
    opened.fill()
    with opened.as_role() as archive:
        assert archive.load("nobody's") is None
        archive.save(chat("first"))
        with archive.edit("first") as state:
            state.add_message("assistant", "Hi!")
        archive.save_many([chat("second"), chat("third", "bob")])
        ours, theirs = archive.load("first"), archive.load("first")
        assert ours is not None
        assert theirs is not None
        theirs.add_message("user", "And now?")
        archive.save(theirs)
        ours.add_message("user", "What else?")
        archive.save(ours, on_conflict="merge")
        ours.metadata["owner"] = "bob"
        archive.save(ours)
        assert archive.delete("first")
        assert not archive.delete("nobody's")
        assert archive.load("first") is None


def read(opened: Opened) -> None:
    """Load, list, count and iterate."""
    no_archive_yet(opened)
    opened.fill()
    with opened.as_role() as archive:
        assert archive.load("chat-1") is not None
        assert archive.load("nobody's") is None
        assert len(archive.list().items) == archive.count() == len(list(archive.iterate())) == 4
        assert len(archive.list({PARTITION_BY: "alice"}, order="-updated_at", limit=2).items) == 2
        assert archive.list({PARTITION_BY: "nobody"}).items == []
        assert archive.stats().conversations == 4


def maintain(opened: Opened) -> None:
    """Create the archive; fold, merge and collect; verify and repair."""
    no_archive_yet(opened)
    Archive.create(opened.url, partition_by=PARTITION_BY, client=opened.role, kms_key_id=opened.kms_key_id).close()
    with opened.as_root() as archive, opened.as_role() as maintainer:
        for number in range(2):
            archive.save_many([chat(f"chat-{number}-{n}") for n in range(3)])
            # Full at once, and collected at once: what takes an archive days.
            with (
                mock.patch("s3conv.core.maintaining.FULL_TAIL", 0),
                mock.patch("s3conv.core.maintaining.FULL_MID", 0),
                mock.patch("s3conv.core.maintaining.RETIRED_KEPT", -math.inf),
            ):
                done = maintainer.maintain()
            assert done.finished
            assert done.segments_merged
        assert done.deleted
        assert maintainer.verify().differences == []
        opened.root.delete_object(Bucket=_bucket(opened), Key=f"{opened.url.split('/', 3)[3]}/{MANIFEST}")
        verified = maintainer.verify(repair=True)
        assert verified.mended
        assert verified.differences == []


def export(opened: Opened) -> None:
    """Export below the export prefix, also in two goes; verify."""
    no_archive_yet(opened)
    opened.fill()
    output, _ = open_bucket(f"{opened.exports}/all", {"client": opened.role, "kms_key_id": opened.kms_key_id})
    job = Job(shard_size=1)  # a file for each conversation
    with opened.as_role() as archive:
        with pytest.raises(InterruptedError):
            export_files(archive, output, job, progress=_after(2, InterruptedError()))
        assert export_files(archive, output, job).conversations == 4
        assert archive.verify().differences == []


def _after(times: int, error: Exception) -> Callable[[int, int], None]:
    left = iter(range(times))

    def called(conversations: int, size: int) -> None:
        if next(left, None) is None:
            raise error

    return called


def _bucket(opened: Opened) -> str:
    return opened.url.split("/")[2]


ROLES: dict[str, Callable[[Opened], None]] = {
    "Reader": read,
    "Writer": write,
    "Maintainer": maintain,
    "Exporter": export,
}
