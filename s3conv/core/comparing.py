"""Comparing: what the documents and the index say of one conversation, and every way in which the two can differ.

Law: pure, and the document has the last word. What the protocol allows is no difference: a save that is announced and
not yet folded, an intent that is ahead of its document, and activity fields that lag inside an activity window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from s3conv.core.window import MARGIN
from s3conv.errors import StorageError
from s3conv.format.document import Document
from s3conv.format.entry import Entry, SortKey, read_index_time, sort_key
from s3conv.format.keys import document_key, log_prefix
from s3conv.format.manifest import REPAIR
from s3conv.format.rows import decode_row, encode_row

Kind = Literal[
    "damaged-descriptor",
    "damaged-manifest",
    "damaged-segment",
    "damaged-recent",
    "damaged-intent",
    "wrong-intent",
    "damaged-document",
    "misplaced-document",
    "newer-format",
    "stray-object",
    "not-indexed",
    "no-document",
    "wrong-row",
    "two-rows",
]
"""What a difference can be; docs/verifying.md says what each means."""

MENDED: frozenset[Kind] = frozenset(
    (
        "damaged-manifest",
        "damaged-segment",
        "damaged-recent",
        "damaged-intent",
        "wrong-intent",
        "not-indexed",
        "no-document",
        "wrong-row",
        "two-rows",
    )
)
"""What the documents alone can mend."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be: in which object (its full name), and what, in a sentence.

    `mendable`: whether a repair mends it, which rebuilds the index from the documents.
    """

    kind: Kind
    object: str
    sentence: str
    conversation_id: str | None = None
    mendable: bool = False


@dataclass(slots=True)
class Verified:
    """What `verify` found. `differences`: those that are there now; `mended`: those that a repair did away with.

    `conversations` and `deleted` are documents that could be read. `pending`: intents whose document is behind, as
    their writers may be at work or have died. `changing`: conversations that others changed whenever they were looked
    at, so that nothing can be said of them. `repaired`: whether the index was rebuilt.
    """

    conversations: int = 0
    deleted: int = 0
    pending: int = 0
    changing: int = 0
    repaired: bool = False
    differences: list[Difference] = field(default_factory=list)
    mended: list[Difference] = field(default_factory=list)


class RowSeen(NamedTuple):
    """A row of a segment. `run`: 0 for the tail, then mid and base. `line` is kept where it may have to be decoded."""

    key: SortKey
    revision: int
    gone: bool
    digest: int
    run: int
    segment: str
    newer: bool = False
    line: bytes = b""


class IntentSeen(NamedTuple):
    """An intent of the log: the prefix and key that it lies under, and what it says, as a hash without the size."""

    prefix: str
    key: str
    revision: int
    write: str
    digest: int
    size: int | None


class Said(NamedTuple):
    """What a document says, when it was read, and the hash of the row that it should have."""

    entry: Entry
    key: SortKey
    write: str
    until: str | None
    date: float
    line: bytes

    @property
    def digest(self) -> int:
        return hash(self.line)


class Finding(NamedTuple):
    """A difference about one conversation: the object's key, a sentence, and the sort key that it is about."""

    kind: Kind
    object: str
    sentence: str
    at: SortKey


def said_by(document: Document, partition_by: str | None, date: float) -> Said:
    """What a document says of its conversation.

    Raises:
        StorageError: it holds none.
    """
    entry = document.entry(partition_by)
    key = sort_key(entry, partition_by)
    return Said(entry, key, document.stamp.write, document.stamp.speaks_until, date, encode_row(entry))


def intent_digest(entry: Entry) -> int:
    """A hash of what an entry says, but for the size, which the intent of an activity window cannot know."""
    return hash(encode_row(msgspec.structs.replace(entry, size=0)))


def counting(rows: Iterable[RowSeen]) -> list[RowSeen]:
    """Those rows of a conversation that count: at each sort key the highest revision, at equal ones the newer run's."""
    found: dict[SortKey, RowSeen] = {}
    for row in rows:
        known = found.get(row.key)
        if known is None or (row.revision, -row.run) > (known.revision, -known.run):
            found[row.key] = row
    return list(found.values())


def compare(said: Said | None, rows: Sequence[RowSeen], intents: Sequence[IntentSeen]) -> list[Finding]:
    """Every difference between a conversation's document and the index.

    Args:
        said: what its document says; None if there is no document.
        rows: all of the conversation's rows in all segments, superseded ones too.
        intents: all of its intents.
    """
    if said is None:
        return [
            Finding("no-document", row.segment, f"a row has revision {row.revision}, and there is no document", row.key)
            for row in counting(rows)[:1]
        ]
    entry, document = said.entry, document_key(said.entry.conversation_id)
    what = f"it says something else than the document, at revision {entry.revision}"
    findings = [Finding("wrong-intent", one.key, what, said.key) for one in intents if _is_wrong(one, said)]
    found = len(findings)
    in_place = False
    elsewhere: list[RowSeen] = []
    for row in counting(rows):
        if row.revision > entry.revision:
            what = f"its row has revision {row.revision}; the document has {entry.revision}"
            findings.append(Finding("wrong-row", row.segment, what, row.key))
        elif row.key != said.key or (entry.deleted and not row.gone):
            if not row.gone and not _announced(row.key, said, intents):
                elsewhere.append(row)
        elif row.digest == said.digest:
            in_place = True
        elif row.revision == entry.revision:
            in_place = True
            what = f"its row says something else than the document, at revision {entry.revision}"
            findings.append(Finding("wrong-row", row.segment, what, row.key))
        elif not row.gone:
            in_place = True
            if not _announced(row.key, said, intents) and not _lags(row, said):
                what = f"its row has revision {row.revision}, and nothing announces the document's {entry.revision}"
                findings.append(Finding("wrong-row", row.segment, what, row.key))
    findings += [_elsewhere(row, entry, in_place) for row in elsewhere]
    if not (entry.deleted or in_place or len(findings) > found or _announced(said.key, said, intents)):
        what = f"no list shows it: there is neither a row nor an intent for revision {entry.revision}"
        findings.append(Finding("not-indexed", document, what, said.key))
    return findings


def _elsewhere(row: RowSeen, entry: Entry, in_place: bool) -> Finding:
    """What is wrong with a row that shows a conversation where it is not."""
    if entry.deleted:
        what = f"its row shows revision {row.revision}, and it was deleted with revision {entry.revision}"
    elif in_place:
        what = f"it is also shown at another sort key, with revision {row.revision}"
    else:
        what = f"its row is at another sort key, with revision {row.revision}; the document has {entry.revision}"
    return Finding("two-rows" if in_place and not entry.deleted else "wrong-row", row.segment, what, row.key)


def pending(said: Said | None, intents: Iterable[IntentSeen]) -> int:
    """How many intents are ahead of their document."""
    revision = said.entry.revision if said else 0
    return sum(intent.revision > revision for intent in intents)


def _is_wrong(intent: IntentSeen, said: Said) -> bool:
    """Whether an intent announces what its document does not say."""
    if (intent.revision, intent.write) != (said.entry.revision, said.write):
        return False
    return intent.digest != intent_digest(said.entry) or intent.size not in (None, said.entry.size)


def _announced(key: SortKey, said: Said, intents: Iterable[IntentSeen]) -> bool:
    """Whether the log sends those who list the partition of a sort key to the document, and a fold too.

    An intent ahead of the document does not: it is dropped one day, and nothing becomes of it.
    """
    reached = [intent for intent in intents if intent.revision <= said.entry.revision]
    return bool(reached) and log_prefix(key[0]) in {intent.prefix for intent in reached}


def _lags(row: RowSeen, said: Said) -> bool:
    """Whether a row is behind only as an activity window allows, for now."""
    if said.until is None or not row.line or said.date > read_index_time(said.until).timestamp() + MARGIN:
        return False
    try:
        entry = decode_row(row.line, "a row")
    except StorageError:
        return False
    now = said.entry
    lagging = msgspec.structs.replace(
        entry,
        revision=now.revision,
        updated=now.updated,
        message_count=now.message_count,
        branch_count=now.branch_count,
        size=now.size,
    )
    return encode_row(lagging) == said.line


def difference(kind: Kind, name: str, what: object, conversation_id: str | None = None) -> Difference:
    """A difference about the object with this full name; what an error says of it is made a part of the sentence."""
    sentence = str(what).removesuffix(f"; {REPAIR}").removeprefix(name).lstrip(" :") or "it cannot be read"
    return Difference(kind, name, sentence, conversation_id, kind in MENDED)
