"""Holds an archive to what the journals of its actors say: the facts that s3conv promises.

Law: the documents are read past the index, and every fact is worked out from them and the journals alone. Ages pass by
the store's clock: `Later` moves that on, so that nobody waits a day for an intent of a killed writer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from s3conv import Archive
from s3conv.bridge import run_sync
from s3conv.core import maintaining
from s3conv.core.log import pages
from s3conv.core.segments import read_manifest
from s3conv.core.window import MARGIN
from s3conv.format.document import Document, decode_document
from s3conv.format.entry import Entry
from s3conv.format.keys import CONVERSATIONS, LOG, RECENT, SEGMENTS
from s3conv.store.base import Listing, ObjectStore, StoredObject, Written
from s3conv.store.counting import CountingStore
from tests.integration.journal import ACKED, Call, Journals, Listed
from tests.integration.workload import (
    MOVING,
    PARTITION_BY,
    TITLES,
    USERS,
    WINDOW,
    WINDOWED,
    tree_of,
)

HOUR = 3600.0
DAY = 24 * HOUR
ORDERS = ("-updated_at", "updated_at", "conversation_id", "-created_at")


class Later(CountingStore):
    """A store whose clock is ahead. What it writes is as old as its clock is ahead."""

    def __init__(self, inner: ObjectStore, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        found = await super().get(key, if_none_match=if_none_match, span=span)
        return found and msgspec.structs.replace(found, date=found.date + self.seconds)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        written = await super().put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)
        return replace(written, date=written.date + self.seconds)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        page = await super().list(prefix, after=after)
        return replace(page, date=page.date + self.seconds)

    async def close(self) -> None:
        return  # the inner store is its owner's


@dataclass
class Verdict:
    """What was found against the archive, and how often each fact was looked at."""

    violations: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def demand(self, holds: bool, fact: str, what: str) -> None:
        self.checked[fact] += 1
        if not holds:
            self.violations.append(f"{fact}: {what}")


def check(store: ObjectStore, journals: Journals) -> Verdict:
    """Every fact, once all actors have stopped. The archive is maintained on the way."""
    verdict = Verdict()
    documents = documents_of(store)
    check_calls(verdict, journals, documents)
    check_reads(verdict, journals)
    check_manifest(verdict, store, "as the actors left it")
    # Every intent is old now, so that the document is asked, and no window is open.
    check_index(verdict, Later(store, WINDOW + MARGIN + 61), documents, "before maintenance")
    day_later = Later(store, DAY + HOUR)
    _maintain(verdict, day_later)
    left = _keys(day_later, LOG)
    verdict.demand(not left, "after maintenance the log is empty", f"it has {left}")
    check_index(verdict, day_later, documents, "after maintenance")
    week_later = Later(store, 9 * DAY)
    with Archive.open(week_later) as archive:
        now = run_sync(read_manifest(archive._context))
        run_sync(maintaining.merge(archive._context, archive._cache, now, "base"))
    check_index(verdict, week_later, documents, "after all was merged into base")
    last = Later(store, 11 * DAY)
    _maintain(verdict, last)
    check_index(verdict, last, documents, "after all was collected")
    named = check_manifest(verdict, last, "after all was collected")
    there = {*_keys(last, SEGMENTS), *_keys(last, RECENT)}
    verdict.demand(there == named, "what no longer counts is deleted", f"left {there - named}")
    verdict.demand(documents_of(store) == documents, "maintenance changes no document", "one was changed")
    return verdict


# --- the documents ---------------------------------------------------------------------------------------------------


def documents_of(store: ObjectStore) -> dict[str, Document]:
    """All documents and tombstones by id, as they lie there."""
    found = {}
    for key in _keys(store, CONVERSATIONS):
        body = run_sync(store.get(key))
        assert body is not None
        document = decode_document(body.body, None, key)
        found[document.conversation_id] = document
    return found


def _keys(store: ObjectStore, prefix: str) -> list[str]:
    async def listed() -> list[str]:
        with Archive.open(store) as archive:
            return [one.key async for page in pages(archive._context, prefix) for one in page.objects]

    return run_sync(listed())


# --- calls -----------------------------------------------------------------------------------------------------------


def check_calls(verdict: Verdict, journals: Journals, documents: dict[str, Document]) -> None:
    """An acknowledged save was applied once, a conflict or refusal not at all, an unknown outcome once at most."""
    by_id: defaultdict[str, list[Call]] = defaultdict(list)
    for call in journals.calls:
        by_id[call.conversation_id].append(call)
    for conversation_id, document in documents.items():
        verdict.demand(conversation_id in by_id, "nobody's document is there", conversation_id)
        lineage = document.stamp.lineage
        whole = min(document.stamp.revision, 16)
        verdict.demand(
            len(lineage) == len(set(lineage)) == whole and lineage[-1] == document.stamp.write,
            "a lineage has each write once",
            f"{conversation_id}: revision {document.stamp.revision}, {lineage}",
        )
    for conversation_id, calls in by_id.items():
        document_of_it = documents.get(conversation_id)
        tree: dict[str, str] = {}
        if document_of_it is not None and not document_of_it.deleted:
            tree = tree_of(document_of_it.state())
        revision = document_of_it.stamp.revision if document_of_it is not None else 0
        _check_revisions(verdict, conversation_id, calls, tree, revision)
        _check_messages(verdict, conversation_id, calls, tree)
        if conversation_id.startswith("own-"):
            _check_own(verdict, conversation_id, calls, tree)


def _check_revisions(
    verdict: Verdict, conversation_id: str, calls: list[Call], tree: dict[str, str], revision: int
) -> None:
    """Each write makes one revision, so that nothing was written twice and nothing acknowledged was lost."""
    acked = [call for call in calls if call.outcome == ACKED]
    told = Counter(call.revision for call in acked if call.revision)
    verdict.demand(
        all(times == 1 for times in told.values()) and all(number <= revision for number in told),
        "each acknowledged save has a revision of its own",
        f"{conversation_id} at revision {revision}: {[number for number, times in told.items() if times > 1]}",
    )
    maybe = [call for call in calls if call.is_open]
    # An open call whose message is there, and in no other call that may have brought it, was certainly applied.
    certain = 0
    for call in maybe:
        others = [one for one in calls if one is not call and (one.outcome == ACKED or one.is_open)]
        certain += call.message in tree and not any(call.message in one.texts for one in others)
    verdict.demand(
        len(acked) + certain <= revision <= len(acked) + len(maybe),
        "revisions count the saves",
        f"{conversation_id} is at revision {revision}: {len(acked)} acknowledged, {len(maybe)} open, {certain} there",
    )


def _check_messages(verdict: Verdict, conversation_id: str, calls: list[Call], tree: dict[str, str]) -> None:
    parents: defaultdict[str, set[str]] = defaultdict(set)
    bringers: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.message:
            parents[call.message].add(call.parent)
        for text in call.texts:
            bringers[text].append(call)
    for text, parent in tree.items():
        if text == "Hi" and parent == "":
            continue
        brought = [call for call in bringers.get(text, ()) if call.outcome == ACKED or call.is_open]
        verdict.demand(
            bool(brought),
            "only what was acknowledged or left open is there, once",
            f"{conversation_id} has {text!r}, of {bringers.get(text)}",
        )
        verdict.demand(
            parent in parents[text],
            "a message is under its own parent",
            f"{conversation_id}: {text!r} is under {parent!r}, not {parents[text]}",
        )
    deletes = [call for call in calls if call.how == "delete" and (call.outcome == ACKED or call.is_open)]
    for text, calls_of_it in bringers.items():
        acked = [call for call in calls_of_it if call.outcome == ACKED]
        if not acked or conversation_id.startswith("own-"):
            continue
        gone = any(one.end > min(call.begin for call in acked) for one in deletes)
        verdict.demand(
            text in tree or gone,
            "an acknowledged save is there",
            f"{conversation_id} lacks {text!r}, saved by {acked}",
        )
        saved = max(call.end for call in calls_of_it if call.outcome == ACKED or call.is_open)
        if any(one.outcome == ACKED and one.begin > saved for one in deletes):
            verdict.demand(
                text not in tree,
                "what was deleted does not come back",
                f"{conversation_id} has {text!r}, deleted after {acked}",
            )


def _check_own(verdict: Verdict, conversation_id: str, calls: list[Call], tree: dict[str, str]) -> None:
    """It holds what its one writer saved last: of those whose outcome is open, any after the last acknowledged."""
    possible: list[dict[str, str]] = [{}]
    for call in sorted(calls, key=lambda call: call.number):
        if call.outcome == ACKED:
            possible = [call.tree]
        elif call.is_open:
            possible.append(call.tree)
    verdict.demand(tree in possible, "an overwrite holds what it wrote", f"{conversation_id} has {tree}")


# --- reads -----------------------------------------------------------------------------------------------------------


def check_reads(verdict: Verdict, journals: Journals) -> None:
    """A list that began after an acknowledgement shows it, and so does a load."""
    by_id: defaultdict[str, list[Call]] = defaultdict(list)
    for call in journals.calls:
        by_id[call.conversation_id].append(call)
    for listed in journals.lists:
        ids = Counter(entry["conversation_id"] for entry in listed.entries)
        verdict.demand(max(ids.values(), default=1) == 1, "a list shows each once", f"{listed.how}: {ids}")
        _check_order(verdict, listed)
        shown = {entry["conversation_id"]: entry for entry in listed.entries}
        for entry in shown.values():
            verdict.demand(_matches(entry, listed.where), "a list keeps to its filter", f"{listed.where}: {entry}")
            begun = any(call.begin < listed.end for call in by_id[entry["conversation_id"]])
            verdict.demand(begun, "a list shows what somebody wrote", f"{entry}")
        for conversation_id, calls in by_id.items():
            _check_shown(verdict, listed, conversation_id, calls, shown.get(conversation_id))
    for loaded in journals.loads:
        before = [call for call in by_id[loaded.conversation_id] if call.outcome == ACKED and call.end < loaded.begin]
        missing = {text for call in before for text in call.texts} - (loaded.tree or {}).keys()
        verdict.demand(not missing, "a load shows what was acknowledged", f"{loaded.conversation_id}: {missing}")


def _check_shown(
    verdict: Verdict, listed: Listed, conversation_id: str, calls: list[Call], entry: dict[str, Any] | None
) -> None:
    acked = [call for call in calls if call.outcome == ACKED and call.revision and call.end < listed.begin]
    if not acked:
        return
    newest = max(acked, key=lambda call: call.revision)
    if entry is not None:
        # A window lets activity lag. An intent of another partition's loser may show for a minute where a filter leaves
        # the winner out.
        lags = conversation_id in WINDOWED or (conversation_id in MOVING and "metadata.user_id" in listed.where)
        verdict.demand(
            lags or entry["revision"] >= newest.revision,
            "a list shows what was acknowledged before it",
            f"{listed.how} of {listed.where} by {listed.order} shows {conversation_id} at {entry['revision']}, "
            f"acknowledged {newest.revision}",
        )
        return
    if not _matches(newest.entry, listed.where) or (conversation_id in WINDOWED and "message_count" in listed.where):
        return
    # Who may have taken it out of the filter since: whoever was at it together with that save, or later. Messages of
    # conversations that are kept only become more.
    rivals = [
        call
        for call in calls
        if call is not newest and (call.moves or call.how == "delete" or call.conversation_id.startswith("own-"))
        if call.outcome == ACKED or call.is_open
        if call.begin < listed.end and call.end > newest.begin
    ]
    verdict.demand(
        bool(rivals),
        "a list shows what was acknowledged before it",
        f"{listed.how} of {listed.where} by {listed.order} hides {conversation_id}, acknowledged {newest.revision}",
    )


def _check_order(verdict: Verdict, listed: Listed) -> None:
    name, descending = listed.order.removeprefix("-"), listed.order.startswith("-")
    values = [entry[name] for entry in listed.entries]
    verdict.demand(values == sorted(values, reverse=descending), "a list keeps its order", f"{listed.order}: {values}")


def _matches(entry: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether an entry meets the conditions that readers here use."""
    for name, wanted in where.items():
        if name == "message_count":
            if entry["message_count"] < wanted["gte"]:
                return False
        elif entry["metadata"].get(name.removeprefix("metadata.")) != wanted:
            return False
    return True


# --- the index -------------------------------------------------------------------------------------------------------


def check_index(verdict: Verdict, store: ObjectStore, documents: dict[str, Document], when: str) -> None:
    """The index says what the documents say: of every partition, by every filter and order."""
    live = [document.entry(PARTITION_BY) for document in documents.values() if not document.deleted]
    filters: list[dict[str, Any]] = [{}]
    filters += [{"metadata.user_id": user} for user in USERS]
    filters += [{"metadata.title": title} for title in TITLES]
    filters += [{"metadata.user_id": user, "metadata.title": title} for user in USERS for title in TITLES]
    filters += [{"message_count": {"gte": count}} for count in (3, 10)]
    with Archive.open(store, auto_maintain=False) as archive:
        for where in filters:
            expected = {entry.conversation_id: entry for entry in live if _matches(entry.to_dict(), where)}
            for order in ORDERS:
                for limit in (3, 1000):
                    found = archive.list(where, order, limit).items
                    wrong = [entry for entry in found if expected.get(entry.conversation_id) != entry]
                    verdict.demand(
                        not wrong and len(found) == min(limit, len(expected)),
                        "the index equals the documents",
                        f"{when}, a list of {where} by {order}: {_differences(expected, found)}",
                    )
            verdict.demand(
                archive.count(where) == len(expected), "the index equals the documents", f"{when}, a count of {where}"
            )


def _differences(expected: Mapping[str, Entry], found: Sequence[Entry]) -> list[str]:
    shown = {entry.conversation_id: entry for entry in found}
    return [
        f"{name} is {shown.get(name)}; its document says {expected.get(name)}"
        for name in sorted(expected.keys() | shown.keys())
        if expected.get(name) != shown.get(name)
    ][:5]


def check_manifest(verdict: Verdict, store: ObjectStore, when: str) -> set[str]:
    """Each object that the manifest names is there. Returns their keys. Lists read what is in them."""
    with Archive.open(store) as archive:
        named = run_sync(read_manifest(archive._context)).manifest.named()
    missing = [key for key in named if run_sync(store.head(key)) is None]
    verdict.demand(not missing, "the manifest never dangles", f"{when}: {missing}")
    return named


def _maintain(verdict: Verdict, store: ObjectStore) -> None:
    with Archive.open(store) as archive:
        verdict.demand(archive.maintain().finished, "maintenance alone finishes", "it did not")


def kinds_met(journals: Journals) -> Counter[str]:
    """What happened in a run, so that nobody takes it for more than it was."""
    met: Counter[str] = Counter(f"{call.how} {call.outcome}" for call in journals.calls)
    met["lists"] = len(journals.lists)
    met["loads"] = len(journals.loads)
    for done in journals.done:
        met[done.what] += 1
        for name in ("folded", "dropped", "segments_merged", "deleted", "lost"):
            met[name] += done.counts.get(name, 0)
    return met
