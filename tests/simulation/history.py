"""What really happened in a simulation, as somebody sees who watches the store, and what must hold of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import zstandard

from s3conv.bridge import run_sync
from s3conv.format.document import Document, Stamp, decode_document
from s3conv.format.entry import Entry, Intent, decode_log_object
from s3conv.format.keys import CONVERSATIONS, LOG, MANIFEST, RECENT, SEGMENTS, parse_log_key
from s3conv.format.manifest import Recent, decode_manifest
from tests.simulation.world import Request, World

PARTITION_BY = "metadata.user_id"


@dataclass(frozen=True)
class Version:
    """A document as it was committed. `messages`: each one's parent, by their texts."""

    stamp: Stamp
    deleted: bool
    entry: Entry
    messages: dict[str, str]
    texts: list[str]
    date: float


@dataclass(frozen=True)
class Announced:
    """An intent, and when it was written to the log."""

    intent: Intent
    date: float


@dataclass
class Call:
    """A save or delete as its caller sees it: what it wants, the ids of its writes, and what it was told."""

    client: str
    conversation_id: str
    how: str
    message: str = ""
    parent: str = ""
    writes: set[str] = field(default_factory=set)
    outcome: str = "none"
    """acked, conflict, unknown, refused (definitely not saved), or none: its process died."""


@dataclass
class History:
    """All versions of all documents, all intents, and all calls."""

    world: World
    profile: str
    ids: tuple[str, ...] = ()
    versions: dict[str, list[Version]] = field(default_factory=dict)
    intents: dict[str, list[Announced]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)
    """The newest announced revision of each conversation that somebody was told of as saved."""
    told: dict[str, int] = field(default_factory=dict)
    """The newest one, also of those that an activity window left unannounced."""
    violations: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    """What the manifest names."""
    recent: str = ""
    in_recent: dict[str, int] = field(default_factory=dict)
    """The newest revision of each conversation that was ever in `recent`."""

    def violation(self, what: str) -> None:
        self.world.note(f"!! {what}")
        self.violations.append(what)

    def applied(self, request: Request, answer: Any) -> None:
        """Look at a request that the store has just applied."""
        if request.kind == "put" and request.key.startswith(CONVERSATIONS):
            self._document(request.body)
        elif request.kind == "put" and request.key.startswith(LOG):
            for intent in decode_log_object(request.body, request.key):
                self.announce(intent)
        elif request.kind == "put" and request.key == MANIFEST:
            manifest = decode_manifest(request.body, request.key)
            named = manifest.named()
            self.world.counts["bump"] += named == self.named
            self.named = named
            if missing := named - self.world.inner._space.objects.keys():
                self.violation(f"the manifest names what is not there: {sorted(missing)}")
            elif manifest.recent is not None:
                self._recent(manifest.recent)
        elif request.kind == "delete" and request.key.startswith((SEGMENTS, RECENT)):
            found = run_sync(self.world.inner.get(MANIFEST))
            assert found is not None
            if taken := decode_manifest(found.body, MANIFEST).named() & set(request.key.split()):
                self.violation(f"deleted, and the manifest names it: {sorted(taken)}")
        elif request.kind == "delete" and request.key.startswith(CONVERSATIONS):
            self.violation(f"a document was deleted: {request.key}")

    def _recent(self, recent: Recent) -> None:
        """`recent` never goes back to an older entry of a conversation."""
        if recent.name == self.recent:
            return
        self.recent = recent.name
        body = self.world.inner._space.objects[recent.key].body
        for line in zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(body).splitlines():
            row = msgspec.json.decode(line)
            name, revision = row["conversation_id"], row["revision"]
            if revision < self.in_recent.get(name, 0):
                self.violation(f"recent goes back to {name} at {revision}, from {self.in_recent[name]}")
            self.in_recent[name] = revision

    def _document(self, body: bytes) -> None:
        document = decode_document(body, None, "a document")
        messages, texts = _messages(document)
        versions = self.versions.setdefault(document.conversation_id, [])
        entry = document.entry(PARTITION_BY)
        version = Version(document.stamp, document.deleted, entry, messages, texts, self.world.now)
        if len(texts) != len(messages):
            self.violation(f"{document.conversation_id}: revision {document.stamp.revision} has a message twice")
        before = versions[-1] if versions else None
        versions.append(version)
        if document.stamp.speaks_until and not self.announced(document.conversation_id, document.stamp.write):
            self.world.counts["elided intent"] += 1
        if before is None:
            return
        if document.stamp.revision != before.stamp.revision + 1:
            self.violation(
                f"{document.conversation_id}: revision {document.stamp.revision} after {before.stamp.revision}"
            )
        call = self.call_of(document.stamp.write)
        if call is not None:
            # A client may bring its own again: a new state whose first save it was never told of.
            last = max((number for number, one in enumerate(versions) if one.deleted), default=0)
            gone = {text for one in versions[:last] for text in one.texts[1:]}
            new = [text for text in texts if text not in before.texts and not text.startswith(f"{call.client}.")]
            if risen := [text for text in new if text in gone]:
                self.violation(f"{document.conversation_id}: deleted, and then there is {risen[0]!r} again")
        if before.deleted or document.deleted or (call is not None and call.how == "overwrite"):
            return
        for text, parent in before.messages.items():
            if messages.get(text) != parent:
                self.violation(
                    f"{document.conversation_id}: revision {document.stamp.revision} has {text!r} under "
                    f"{messages.get(text)!r}; before it was under {parent!r}"
                )

    def call_of(self, write: str) -> Call | None:
        return next((call for call in self.calls if write in call.writes), None)

    def announced(self, conversation_id: str, write: str) -> bool:
        return any(one.intent.write == write for one in self.intents.get(conversation_id, ()))

    def announce(self, intent: Intent) -> None:
        """Note an intent that is in the log."""
        self.intents.setdefault(intent.entry.conversation_id, []).append(Announced(intent, self.world.now))

    def acknowledge(self, call: Call) -> None:
        """Note that a caller was told that its save is made."""
        for version in reversed(self.versions.get(call.conversation_id, [])):
            if version.stamp.write in call.writes:
                last = self.told.get(call.conversation_id, 0)
                self.told[call.conversation_id] = max(last, version.stamp.revision)
                if self.announced(call.conversation_id, version.stamp.write):
                    known = self.acked.get(call.conversation_id, 0)
                    self.acked[call.conversation_id] = max(known, version.stamp.revision)
                return

    def check_calls(self) -> None:
        """An acknowledged save was applied once, a conflict not at all, an unknown outcome once at most."""
        for call in self.calls:
            versions = self.versions.get(call.conversation_id, [])
            times = sum(version.stamp.write in call.writes for version in versions)
            least, most = {"acked": (1, 1), "conflict": (0, 0), "refused": (0, 0)}.get(call.outcome, (0, 1))
            if not least <= times <= most:
                self.violation(f"{call} was applied {times} times")
            if not times or not call.message:
                continue
            made = next(position for position, one in enumerate(versions) if one.stamp.write in call.writes)
            if versions[made].texts.count(call.message) != 1:
                self.violation(f"{call}: its version has the message {versions[made].texts.count(call.message)} times")
            elif versions[made].messages[call.message] != call.parent:
                self.violation(f"{call}: the message is under {versions[made].messages[call.message]!r}")

    def check_intents(self) -> None:
        """Where nothing goes wrong, only writes that were made, or may have been, stay announced.

        A batch stays for its others.
        """
        made = {version.stamp.write for versions in self.versions.values() for version in versions}
        made.update(write for call in self.calls if call.outcome == "unknown" for write in call.writes)
        for key in [key for key in self.world.inner._space.keys if key.startswith(LOG)]:
            name = parse_log_key(key)
            if name is not None and name.id_hash is not None and name.write not in made:
                self.violation(f"{key} announces a write that was not made")

    def live(self) -> dict[str, Entry]:
        """The entries of all conversations as their documents now say."""
        found = {}
        for conversation_id, versions in self.versions.items():
            if not versions[-1].deleted:
                found[conversation_id] = versions[-1].entry
        return found

    def late(self, conversation_id: str) -> bool:
        """Whether the newest version came unannounced, too late, and from somebody who was gone when it did.

        Its activity may stay behind in the index until the next save: docs/reliability.md.
        """
        newest = self.versions[conversation_id][-1]
        until = newest.stamp.speaks_until
        if until is None or self.announced(conversation_id, newest.stamp.write):
            return False
        call = self.call_of(newest.stamp.write)
        return call is not None and call.outcome != "acked"


def _messages(document: Document) -> tuple[dict[str, str], list[str]]:
    """Each message's parent, by their texts, which no two messages share unless something is wrong; and all texts."""
    if document.deleted:
        return {}, []
    parents: dict[str, str] = {}
    texts = []
    for place in document.state().message_tree.walk():
        text = str(place.data.message.content)
        texts.append(text)
        parents[text] = str(place.parent.data.message.content) if place.parent is not None else ""
    return parents, texts
