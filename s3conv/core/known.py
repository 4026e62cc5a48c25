"""What the archive knows of a state: which document it was loaded from or saved as.

Law: it hangs on the state object, not on its id, so that two states of one conversation do not disturb each other;
a copy or a pickle of a state takes it along. It is only believed for the archive and the id that it was noted for; a
state that is saved to some archives in turns has a note for each.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace

from s3conv.bridge import Mutex
from s3conv.errors import CorruptError, InvalidInputError, SchemaVersionError
from s3conv.format.control import Descriptor
from s3conv.format.document import NOTHING, Document, Stamp, decode_document
from s3conv.format.entry import Entry, sort_key
from s3conv.model.state import ConversationState
from s3conv.store.base import Written

_ATTRIBUTE = "_s3conv_known"

NOTES = 4
"""Archives of which a state keeps a note: those that it was saved to last."""

EDITED_BYTES = 16 * 1024 * 1024
"""Stored bytes of all versions that `Edited` keeps: a thousand long chats, and little of a small function's memory."""

EDITED_FOR = 900.0
"""Seconds for which an edit may begin from what this process saved last, unseen what others have saved since."""


@dataclass(frozen=True, slots=True)
class Known:
    """A version of a document that a state is, or began from.

    `body` is the stored document: the base of a merge. `date` and `wall` are the store's clock when that was last
    heard of, and ours. `attempts` are ids of writes of this state whose outcome stayed unknown: meeting one of them
    again is not a conflict. A new state has revision 0 and no ETag. `lasting` is only there where the stamp speaks on.
    """

    archive: str
    conversation_id: str
    stamp: Stamp
    etag: str
    partition: str
    created: str
    body: bytes
    date: float = 0.0
    wall: float = math.inf
    lasting: str = ""
    attempts: tuple[str, ...] = ()
    deleted: bool = False

    @property
    def is_new(self) -> bool:
        """Whether no document is known that the state began from."""
        return self.stamp.revision == 0

    @property
    def creates(self) -> bool:
        """Whether a save on it creates the conversation: there was none, or it was deleted before the state began."""
        return self.is_new or self.deleted

    def base(self) -> ConversationState | None:
        """The version itself, or None where it was a tombstone or cannot be read (a merge works without)."""
        try:
            document = decode_document(self.body, self.conversation_id, "the base of a merge")
            return None if document.deleted else document.state()
        except (CorruptError, InvalidInputError, SchemaVersionError):
            return None


class Edited:
    """The versions that edits in this process have saved last, for the next edits of these conversations to begin from.

    Law: nobody sees an older version than this process has seen before, whichever of its threads was it. So the highest
    revision that was seen is noted, also while the version itself is with an edit, and none below it is kept again.
    """

    def __init__(self) -> None:
        self._versions: OrderedDict[str, _Version] = OrderedDict()
        self._size = 0
        self._lock = Mutex()

    def take(self, conversation_id: str, now: float) -> Known | None:
        """Hand a version out to an edit, and keep its revision; None if it is not there, or too old at `now`."""
        with self._lock:
            version = self._versions.get(conversation_id, _Version(0))
            self._note(conversation_id, _Version(version.revision))
        known = version.known
        return known if known is not None and 0 <= now - known.wall <= EDITED_FOR else None

    def keep(self, known: Known) -> None:
        """Keep this version of a conversation that was edited here, unless a newer one was seen."""
        version = _Version(known.stamp.revision, known)
        with self._lock:
            before = self._versions.get(known.conversation_id)
            if before is not None and before.revision <= version.revision:
                self._note(known.conversation_id, version)

    def saw(self, conversation_id: str, revision: int) -> None:
        """Keep no version below this revision."""
        with self._lock:
            before = self._versions.get(conversation_id)
            if before is not None and before.revision < revision:
                self._note(conversation_id, _Version(revision))

    def saw_none(self, conversation_id: str) -> None:
        """Keep no version that was seen until now: there is no such conversation any more."""
        with self._lock:
            before = self._versions.get(conversation_id)
            if before is not None:
                self._note(conversation_id, _Version(before.revision + 1))

    def has(self, conversation_id: str) -> bool:
        """Whether there is a version of it."""
        version = self._versions.get(conversation_id)
        return version is not None and version.known is not None

    def _note(self, conversation_id: str, version: _Version) -> None:
        """Note what is known now; what was noted longest ago goes if there is too much."""
        before = self._versions.pop(conversation_id, None)
        if before is not None:
            self._size -= before.size
        self._versions[conversation_id] = version
        self._size += version.size
        while self._size > EDITED_BYTES:
            _, oldest = self._versions.popitem(last=False)
            self._size -= oldest.size


@dataclass(frozen=True, slots=True)
class _Version:
    """The highest revision of a conversation that was seen, and that version if it is kept."""

    revision: int
    known: Known | None = None

    @property
    def size(self) -> int:
        """Bytes: the document, and about what all the rest takes."""
        return 500 + (len(self.known.body) if self.known is not None else 0)


def nothing_known(archive: Descriptor, conversation_id: str) -> Known:
    """What is known of a new state."""
    return Known(archive.nonce, conversation_id, stamp=NOTHING, etag="", partition="", created="", body=b"")


def known_of(
    archive: Descriptor, entry: Entry, stamp: Stamp, written: Written, body: bytes, wall: float, lasting: str
) -> Known:
    """What is known of a document with this entry that was written, when our clock was at `wall`."""
    partition, created, conversation_id = sort_key(entry, archive.partition_by)
    return Known(
        archive.nonce,
        conversation_id,
        stamp=stamp,
        etag=written.etag,
        partition=partition,
        created=created,
        body=body,
        date=written.date,
        wall=wall,
        lasting=lasting,
    )


def known_of_document(
    archive: Descriptor,
    document: Document,
    etag: str,
    body: bytes,
    date: float,
    wall: float,
    attempts: tuple[str, ...] = (),
) -> Known:
    """What is known of a document that was read, at `date` of the store's clock and `wall` of ours."""
    partition, created = document.sort_key(archive.partition_by)
    return Known(
        archive.nonce,
        document.conversation_id,
        stamp=document.stamp,
        etag=etag,
        partition=partition,
        created=created,
        body=body,
        date=date,
        wall=wall,
        lasting=document.lasting() if document.stamp.speaks_until else "",
        attempts=attempts,
        deleted=document.deleted,
    )


def remember(state: object, known: Known) -> None:
    """Note it on the state. A class that takes no attributes goes without: its saves look at the document first."""
    others = [note for note in _notes(state) if note.archive != known.archive]
    with suppress(AttributeError):
        object.__setattr__(state, _ATTRIBUTE, (known, *others[: NOTES - 1]))


def recall(state: object, archive: Descriptor, conversation_id: str) -> Known | None:
    """What was noted on the state for this archive and id."""
    for known in _notes(state):
        if (known.archive, known.conversation_id) == (archive.nonce, conversation_id):
            return known
    return None


def hand_over(giver: object, taker: object) -> None:
    """Note on one object what was noted on another that stands for the same state."""
    with suppress(AttributeError):
        object.__setattr__(taker, _ATTRIBUTE, _notes(giver))


def _notes(state: object) -> tuple[Known, ...]:
    """What is noted on the state, the newest first."""
    notes = getattr(state, _ATTRIBUTE, ())
    return notes if isinstance(notes, tuple) else ()


def with_attempt(known: Known, write: str) -> Known:
    """The same, with one more write whose outcome is unknown."""
    return replace(known, attempts=(*known.attempts, write)[-16:])
