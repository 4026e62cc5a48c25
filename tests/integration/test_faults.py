"""Each fault on each request of each operation, over both transports as shipped: what callers are told is true.

No fault turns a success into a conflict or writes twice; a definite error means that nothing was written; what cannot
be known is called so; a fault that passes is got over; a read is right or an error, never shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from s3conv import Archive, AsyncArchive, ConversationState
from s3conv.bridge import run_sync
from s3conv.core.loading import fetch_document
from s3conv.errors import (
    AccessDeniedError,
    ConflictError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    UnavailableError,
)
from s3conv.format.document import Document, decode_document
from s3conv.format.keys import CONVERSATIONS, DESCRIPTOR, LOG, MANIFEST, RECENT, SEGMENTS, document_key
from s3conv.store import StoredObject
from s3conv.store.memory import MemoryStore
from tests.integration.checker import Verdict, check_manifest
from tests.integration.conftest import Side, make_archive
from tests.integration.proxy import Fault, Proxy, Request, always, each_of, first_of_each, once, possible
from tests.integration.workload import PARTITION_BY, done, start, tree_of

AnyArchive = Archive | AsyncArchive

STALLS = (Fault.STALL_BEFORE, Fault.STALL_AFTER)
LASTING = (Fault.CUT, Fault.DENIED)
"""Those that are tried on all requests of a kind, too."""
LASTING_ON_DOCUMENTS = (*LASTING, Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.CONTENDED_BEFORE, Fault.STALL_AFTER)
"""The same for the write that commits. (409 after the write, again and again, would be a lie.)"""


@dataclass
class Case:
    """One conversation in one archive: what it was before, and what an operation on it wants."""

    conversation_id: str
    archive: AnyArchive
    other: Archive
    """Somebody else, past the proxy."""
    state: ConversationState | None = None

    def document(self) -> Document | None:
        return run_sync(fetch_document(self.other._context, self.conversation_id))


Operation = Callable[[Case], Coroutine[Any, Any, object]]


# --- operations: what is there before, and what is done --------------------------------------------------------------


def prepare_new(case: Case) -> None:
    case.state = start(case.conversation_id)
    case.state.add_message("user", "mine")


def prepare_loaded(case: Case) -> None:
    case.other.save(_with(start(case.conversation_id), "before"))
    case.state = case.other.load(case.conversation_id)
    assert case.state is not None
    case.state.add_message("user", "mine")


def prepare_behind(case: Case) -> None:
    prepare_loaded(case)
    with case.other.edit(case.conversation_id) as state:
        state.add_message("user", "theirs")


def prepare_there(case: Case) -> None:
    case.other.save(_with(start(case.conversation_id), "before"))


def _with(state: ConversationState, text: str) -> ConversationState:
    state.add_message("user", text)
    return state


async def save(case: Case) -> object:
    assert case.state is not None
    return await done(case.archive.save(case.state))


async def save_merged(case: Case) -> object:
    assert case.state is not None
    return await done(case.archive.save(case.state, "merge"))


async def edit(case: Case) -> None:
    if isinstance(case.archive, Archive):
        with ExitStack() as stack:
            _with(stack.enter_context(case.archive.edit(case.conversation_id)), "mine")
    else:
        async with AsyncExitStack() as stack_:
            _with(await stack_.enter_async_context(case.archive.edit(case.conversation_id)), "mine")


async def save_many(case: Case) -> object:
    assert case.state is not None
    other = _with(start(f"{case.conversation_id}-other"), "mine")
    return await done(case.archive.save_many([case.state, other]))


async def delete(case: Case) -> object:
    return await done(case.archive.delete(case.conversation_id))


@dataclass(frozen=True)
class Writing:
    """An operation that writes one conversation: by how many revisions, and the messages that it has then."""

    prepare: Callable[[Case], None]
    do: Operation
    tree: dict[str, str] | None
    conflict: bool = False


WRITING = {
    "a new one": Writing(prepare_new, save, {"Hi": "", "mine": "Hi"}),
    "a loaded one": Writing(prepare_loaded, save, {"Hi": "", "before": "Hi", "mine": "before"}),
    "a merge": Writing(prepare_behind, save_merged, {"Hi": "", "before": "Hi", "theirs": "before", "mine": "before"}),
    "a conflict": Writing(prepare_behind, save, {"Hi": "", "before": "Hi", "theirs": "before"}, conflict=True),
    "an edit": Writing(prepare_there, edit, {"Hi": "", "before": "Hi", "mine": "before"}),
    "a batch": Writing(prepare_new, save_many, {"Hi": "", "mine": "Hi"}),
    "a delete": Writing(prepare_there, delete, None),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    # Who writes makes no difference to a stall, and each costs time.
    [
        (name, fault)
        for name in WRITING
        for fault in Fault
        if fault not in STALLS or name in ("a loaded one", "a merge")
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Fault) else value,
)
def test_a_write(side: Side, proxy: Proxy, name: str, fault: Fault) -> None:
    writing = WRITING[name]
    side.impatient = fault in STALLS
    other = side.archive_past_the_proxy()
    number = 0

    def attempt(choose: Callable[[Request], Fault | None]) -> None:
        nonlocal number
        number += 1
        archive, counting = side.open("archive")
        case = Case(f"conv-{number}", archive, other)
        writing.prepare(case)
        before = case.document()
        proxy.reset(choose)
        counting.reset()
        error: StorageError | None = None
        try:
            side.run(writing.do(case))
        except PartialSaveError as partial:
            error = partial.failed.get(case.conversation_id)
        except StorageError as raised:
            error = raised
        proxy.deliver()
        what = f"{name}, request {number}: {fault.value}; told {error!r}"
        _check_write(case, writing, before, error, what)
        if choose is not none_at_all:
            _check_forwarded(proxy, counting.log, what)
        _Outcome(case, writing, fault, error).check(choose, what)

    attempt(none_at_all)
    requests = list(proxy.received)
    assert "PUT document" in [request.kind for request in requests]
    for request, nth in each_of(requests):
        if not possible(fault, request):
            continue
        attempt(once(request.kind, fault, nth))
        assert proxy.met, f"{name}: {fault.value} met no {request.kind}"
        if nth == 1 and fault in (LASTING_ON_DOCUMENTS if request.kind == "PUT document" else LASTING):
            attempt(always(request.kind, fault))


def none_at_all(request: Request) -> None:
    """No fault."""


def _check_write(case: Case, writing: Writing, before: Document | None, error: StorageError | None, what: str) -> None:
    """What the document says must agree with what the caller was told."""
    after = case.document()
    revision = before.stamp.revision if before is not None else 0
    written = (after.stamp.revision if after is not None else 0) - revision
    assert written in (0, 1), f"{what}: written {written} times"
    match error:
        case None:
            assert written == 1, what
        case OutcomeUnknownError():
            assert not writing.conflict or written == 0, what
        case ConflictError():
            assert writing.conflict, f"{what}: a success became a conflict"
            assert written == 0, what
        case _:
            assert written == 0, what
    if not written or after is None:
        return
    if writing.tree is None:
        assert after.deleted, what
    else:
        assert tree_of(after.state()) == writing.tree, what
    lineage = after.stamp.lineage
    assert len(set(lineage)) == len(lineage) == revision + 1, what


def _check_forwarded(proxy: Proxy, log: list[tuple[str, str]], what: str) -> None:
    """Each conditional PUT reached the proxy once for each time that the core sent it; and none was applied twice."""
    sent = Counter(key for kind, key in log if kind == "put" and key.startswith("conversations/"))
    received = Counter(request.key.partition("/")[2] for request in proxy.conditional_puts())
    assert received == sent, what
    applied = Counter(request.body for request in proxy.conditional_puts(applied=True))
    assert all(times == 1 for times in applied.values()), what


@dataclass(frozen=True)
class _Outcome:
    """Whether the caller was told as well as can be."""

    case: Case
    writing: Writing
    fault: Fault
    error: StorageError | None

    def check(self, choose: Callable[[Request], Fault | None], what: str) -> None:
        lasting = choose.__qualname__.startswith("always")
        if self.fault is Fault.DENIED and choose is not none_at_all:
            assert self.error is None or isinstance(
                self.error, AccessDeniedError | OutcomeUnknownError | ConflictError
            ), what
        elif lasting:
            assert self.error is None or isinstance(
                self.error, UnavailableError | OutcomeUnknownError | ConflictError
            ), what
        elif self.writing.conflict:
            # Where a refusal may be an echo of a lost answer, a conflict is one all the same.
            assert isinstance(self.error, ConflictError), what
        else:
            assert self.error is None, f"{what}: one fault was not got over"


# --- reads -----------------------------------------------------------------------------------------------------------


async def load(case: Case) -> object:
    state = await done(case.archive.load("folded-1"))
    return None if state is None else tree_of(state)


async def list_newest(case: Case) -> object:
    return [entry.conversation_id for entry in (await done(case.archive.list())).items]


async def list_by_count(case: Case) -> object:
    return [entry.conversation_id for entry in (await done(case.archive.list(None, "message_count"))).items]


READING: dict[str, Operation] = {"a load": load, "the newest": list_newest, "all by count": list_by_count}


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("name", list(READING))
def test_a_read(side: Side, proxy: Proxy, name: str, fault: Fault) -> None:
    if fault in (Fault.CONTENDED_BEFORE, Fault.CONTENDED_AFTER):
        return  # no store says so to a read
    side.impatient = fault in STALLS
    other = side.archive_past_the_proxy(_filled())
    expected = run_sync(READING[name](Case("", other, other)))
    assert expected

    def attempt(choose: Callable[[Request], Fault | None]) -> object:
        archive, _ = side.open("archive")
        proxy.reset(choose)
        try:
            return side.run(READING[name](Case("", archive, other)))
        except StorageError as error:
            return error

    assert attempt(none_at_all) == expected
    kinds = list(dict.fromkeys(request.kind for request in proxy.received))
    if fault is not Fault.DENIED:
        assert attempt(first_of_each(fault)) == expected
        assert proxy.met == len(kinds)
    if fault in LASTING:
        for kind in kinds:
            found = attempt(always(kind, fault))
            assert isinstance(found, AccessDeniedError if fault is Fault.DENIED else UnavailableError), (kind, found)


@cache
def _filled() -> list[tuple[str, StoredObject]]:
    """The objects of an archive with something in the log, in a segment and in recent."""
    store = MemoryStore()
    make_archive(store)
    archive = Archive.open(store)
    for number in range(3):
        archive.save(_with(start(f"folded-{number}"), "first"))
    archive.maintain()
    for number in range(2):
        archive.save(_with(start(f"open-{number}"), "first"))
    with archive.edit("folded-1") as state:
        state.add_message("user", "second")
    keys = [DESCRIPTOR, MANIFEST]
    for prefix in (CONVERSATIONS, LOG, SEGMENTS, RECENT):
        keys += [one.key for one in run_sync(store.list(prefix)).objects]
    return [(key, found) for key in keys if (found := run_sync(store.get(key))) is not None]


# --- maintenance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_maintenance(side: Side, proxy: Proxy, fault: Fault) -> None:
    side.impatient = fault in STALLS
    number = 0

    def attempt(choose: Callable[[Request], Fault | None]) -> StorageError | None:
        nonlocal number
        number += 1
        other = side.archive_past_the_proxy(_filled(), f"archive-{number}")
        archive, counting = side.open(f"archive-{number}")
        proxy.reset(choose)
        error: StorageError | None = None
        finished = False
        try:
            finished = side.run(done(archive.maintain())).finished
        except StorageError as raised:
            error = raised
        proxy.deliver()
        _check_manifest_puts(proxy, counting.log)
        assert not any(kind == "put" and key.startswith(CONVERSATIONS) for kind, key in counting.log)
        _check_index(other, folded=finished)
        assert other.maintain().finished
        _check_index(other, folded=True)
        if error is None and not finished:
            return UnavailableError("the manifest could not be replaced, which is said so")
        return error

    assert attempt(none_at_all) is None
    kinds = list(dict.fromkeys(request.kind for request in proxy.received))
    assert "PUT manifest" in kinds
    if fault is not Fault.DENIED:
        error = attempt(first_of_each(fault))
        assert error is None, f"{fault.value}: {error!r}"
        assert proxy.met
    if fault in LASTING:
        for kind in kinds:
            error = attempt(always(kind, fault))
            if error is None and fault is Fault.CUT and kind.startswith("PUT"):
                continue  # a newer SDK takes the status line and the headers for the answer
            assert isinstance(error, AccessDeniedError if fault is Fault.DENIED else UnavailableError), (kind, error)


def _check_manifest_puts(proxy: Proxy, log: list[tuple[str, str]]) -> None:
    sent = sum(kind == "put" and key == MANIFEST for kind, key in log)
    assert len(proxy.conditional_puts()) == sent
    applied = Counter(request.body for request in proxy.conditional_puts(applied=True))
    assert all(times == 1 for times in applied.values())


def _check_index(archive: Archive, *, folded: bool) -> None:
    verdict = Verdict()
    check_manifest(verdict, archive._context.store, "after maintenance")
    assert not verdict.violations
    documents = {
        document.conversation_id: document.entry(PARTITION_BY)
        for key, found in _filled()
        if key.startswith(CONVERSATIONS)
        for document in [decode_document(found.body, None, key)]
    }
    listed = archive.list(None, "conversation_id", 100).items
    assert {entry.conversation_id: entry for entry in listed} == documents
    if folded:
        assert not run_sync(archive._context.store.list(LOG)).objects


# --- the SDK's own retries -------------------------------------------------------------------------------------------


LOST = (Fault.DROP_AFTER, Fault.CUT, Fault.ERROR_AFTER, Fault.BUSY_AFTER, Fault.TWICE)


@pytest.mark.parametrize("where", ["environment", "client"])
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_no_retry_of_the_sdk_writes_twice(
    side: Side, proxy: Proxy, mode: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv("AWS_RETRY_MODE", mode)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    else:
        side.config["retries"] = {"mode": mode, "total_max_attempts": 3}
    other = side.archive_past_the_proxy()
    retries = side.client().meta.config.retries
    assert (retries["mode"], retries["total_max_attempts"]) == (mode, 3)
    archive, counting = side.open("archive")
    for number, fault in enumerate(LOST):
        case = Case(f"conv-{number}", archive, other)
        state = start(case.conversation_id)
        for revision in (1, 2):
            # The second is sent over a connection that was used before.
            state.add_message("user", f"turn {revision}")
            proxy.reset(once("PUT document", fault))
            counting.reset()
            entry = side.run(done(archive.save(state)))
            assert entry.revision == revision
            sends = counting.log.count(("put", document_key(case.conversation_id)))
            assert len(proxy.conditional_puts()) == sends == (1 if fault is Fault.TWICE else 2), fault
            assert len(proxy.conditional_puts(applied=True)) == 1, fault
        document = case.document()
        assert document is not None
        assert document.stamp.revision == 2
    # What is not conditional is the SDK's to repeat, as often as it was told to.
    proxy.reset(always("PUT intent", Fault.BUSY_BEFORE))
    with pytest.raises(UnavailableError):
        side.run(done(archive.save(start("never"))))
    assert [request.kind for request in proxy.received] == ["PUT intent"] * 3
    assert run_sync(fetch_document(other._context, "never")) is None


def test_a_broken_connection_in_use_repeats_no_conditional_put(side: Side, proxy: Proxy) -> None:
    """HTTP clients repeat a request by themselves when a connection that was kept open turns out to be closed."""
    side.archive_past_the_proxy()
    archive, _ = side.open("archive")
    transport_store = archive._context.store
    for fault in (Fault.DROP_BEFORE, Fault.DROP_AFTER):
        proxy.reset()
        side.run(transport_store.get(MANIFEST))  # the connection is open now
        proxy.reset(once("PUT document", fault))
        with pytest.raises(UnavailableError):
            side.run(transport_store.put(f"conversations/00/{fault.name}", b"x", if_none_match="*"))
        assert [request.kind for request in proxy.received] == ["PUT document"]
        assert len(proxy.forwarded) == (fault is Fault.DROP_AFTER)
