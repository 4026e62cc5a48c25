"""Each fault on each request of each operation, over both transports as shipped: what callers are told is true.

No fault turns a success into a conflict or writes twice; a definite error means that nothing was written; what cannot
be known is called so; a fault that passes is got over; a read is right or an error, never shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
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
from s3conv.format.document import Document
from s3conv.format.keys import LOG, MANIFEST, document_key
from s3conv.store import ObjectStore
from tests.integration.checker import Verdict, check_manifest, documents_of
from tests.integration.conftest import Side, make_archive
from tests.integration.proxy import Fault, Proxy, Request, always, each_of, once, possible
from tests.integration.workload import done, start, tree_of

AnyArchive = Archive | AsyncArchive

STALLS = (Fault.STALL_BEFORE, Fault.STALL_AFTER)
LASTING = (Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.CUT, Fault.DENIED, Fault.CONTENDED_BEFORE, Fault.BUSY_AFTER)
"""Those that are tried on all requests of a kind, too. (409 after the write, again and again, would be a lie.)"""


@dataclass
class Case:
    """One conversation in one archive: what it was before, and what an operation on it wants."""

    side: Side
    prefix: str
    conversation_id: str
    store: ObjectStore
    archive: AnyArchive
    state: ConversationState | None = None

    def other(self) -> Archive:
        """Somebody else, past the proxy."""
        return Archive.open(self.store)

    def document(self) -> Document | None:
        return run_sync(fetch_document(self.other()._context, self.conversation_id))


Operation = Callable[[Case], Coroutine[Any, Any, object]]


# --- operations: what is there before, and what is done --------------------------------------------------------------


async def prepare_new(case: Case) -> None:
    case.state = start(case.conversation_id)
    case.state.add_message("user", "mine")


async def prepare_loaded(case: Case) -> None:
    case.other().save(_with(start(case.conversation_id), "before"))
    case.state = await done(case.archive.load(case.conversation_id))
    assert case.state is not None
    case.state.add_message("user", "mine")


async def prepare_behind(case: Case) -> None:
    await prepare_loaded(case)
    with case.other().edit(case.conversation_id) as state:
        state.add_message("user", "theirs")


async def prepare_there(case: Case) -> None:
    case.other().save(_with(start(case.conversation_id), "before"))


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

    prepare: Callable[[Case], Coroutine[Any, Any, None]]
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


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("name", list(WRITING))
def test_a_write(side: Side, proxy: Proxy, s3_endpoint: str, name: str, fault: Fault) -> None:
    writing = WRITING[name]
    side.impatient = fault in STALLS
    store = side.direct("archive", s3_endpoint)
    make_archive(store)
    number = 0

    def attempt(choose: Callable[[Request], Fault | None]) -> None:
        nonlocal number
        number += 1
        archive, counting = side.open("archive")
        case = Case(side, "archive", f"conv-{number}", store, archive)
        proxy.reset()
        side.run(writing.prepare(case))
        before = case.document()
        proxy.reset(choose)
        counting.reset()
        error: StorageError | None = None
        try:
            side.run(_whole(writing.do(case)))
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
        if nth == 1 and (fault in LASTING or (fault is Fault.STALL_AFTER and request.kind == "PUT document")):
            attempt(always(request.kind, fault))


def none_at_all(request: Request) -> None:
    """No fault."""


async def _whole(operation: Coroutine[Any, Any, object]) -> object:
    return await operation


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


async def list_partition(case: Case) -> object:
    where = {"metadata.user_id": start("folded-1").metadata["user_id"]}
    return [entry.conversation_id for entry in (await done(case.archive.list(where, "conversation_id"))).items]


async def list_by_count(case: Case) -> object:
    return [entry.conversation_id for entry in (await done(case.archive.list(None, "message_count"))).items]


async def count(case: Case) -> object:
    return await done(case.archive.count({"metadata.title": "open"}))


async def export(case: Case) -> object:
    if isinstance(case.archive, Archive):
        return [document.line for document in case.archive.export()]
    return [document.line async for document in case.archive.export()]


READING: dict[str, Operation] = {
    "load": load,
    "newest": list_newest,
    "partition": list_partition,
    "by count": list_by_count,
    "count": count,
    "export": export,
}


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("name", list(READING))
def test_a_read(side: Side, proxy: Proxy, s3_endpoint: str, name: str, fault: Fault) -> None:
    if fault in (Fault.CONTENDED_BEFORE, Fault.CONTENDED_AFTER):
        return  # no store says so to a read
    side.impatient = fault in STALLS
    store = side.direct("archive", s3_endpoint)
    _fill(store)
    with Archive.open(store) as direct:
        expected = run_sync(READING[name](Case(side, "archive", "", store, direct)))
    assert expected

    def attempt(choose: Callable[[Request], Fault | None]) -> object:
        archive, _ = side.open("archive")
        proxy.reset(choose)
        try:
            return side.run(READING[name](Case(side, "archive", "", store, archive)))
        except StorageError as error:
            return error

    assert attempt(none_at_all) == expected
    for request, nth in each_of(list(proxy.received)):
        kind = request.kind
        found = attempt(once(kind, fault, nth))
        assert proxy.met, f"{name}: {fault.value} met no {kind}"
        if fault is Fault.DENIED:
            assert isinstance(found, AccessDeniedError), f"{kind}: {found!r}"
        else:
            assert found == expected, f"{kind}: {fault.value}"
        if fault in LASTING and nth == 1:
            found = attempt(always(kind, fault))
            wanted = AccessDeniedError if fault is Fault.DENIED else UnavailableError
            assert isinstance(found, wanted), f"{kind}: {fault.value}: {found!r}"


def _fill(store: ObjectStore) -> None:
    """An archive with something in the log, in a segment and in recent."""
    make_archive(store)
    with Archive.open(store) as archive:
        for number in range(6):
            archive.save(_with(start(f"folded-{number}"), "first"))
        archive.maintain()
        for number in range(3):
            archive.save(_with(start(f"open-{number}"), "first"))
        with archive.edit("folded-1") as state:
            state.add_message("user", "second")


# --- maintenance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_maintenance(side: Side, proxy: Proxy, s3_endpoint: str, fault: Fault) -> None:
    side.impatient = fault in STALLS
    number = 0

    def attempt(choose: Callable[[Request], Fault | None]) -> StorageError | None:
        nonlocal number
        number += 1
        prefix = f"archive-{number}"
        store = side.direct(prefix, s3_endpoint)
        _fill(store)
        documents = documents_of(store)
        archive, counting = side.open(prefix)
        proxy.reset(choose)
        error: StorageError | None = None
        try:
            assert side.run(_whole(done(archive.maintain()))).finished  # type: ignore[attr-defined]  # it is Maintained
        except StorageError as raised:
            error = raised
        proxy.deliver()
        _check_manifest_puts(proxy, counting.log)
        _check_index(store, documents, folded=error is None)
        with Archive.open(store) as other:
            assert other.maintain().finished
        _check_index(store, documents, folded=True)
        return error

    assert attempt(none_at_all) is None
    requests = list(proxy.received)
    assert "PUT manifest" in [request.kind for request in requests]
    for request, nth in each_of(requests):
        if not possible(fault, request):
            continue
        kind = request.kind
        error = attempt(once(kind, fault, nth))
        assert proxy.met, f"{fault.value} met no {kind}"
        if fault is Fault.DENIED:
            assert isinstance(error, AccessDeniedError), f"{kind}: {error!r}"
        else:
            assert error is None, f"{kind}: {fault.value}: {error!r}"
        if fault in LASTING and nth == 1:
            error = attempt(always(kind, fault))
            wanted = AccessDeniedError if fault is Fault.DENIED else UnavailableError
            assert isinstance(error, wanted), f"{kind}: {fault.value}: {error!r}"


def _check_manifest_puts(proxy: Proxy, log: list[tuple[str, str]]) -> None:
    sent = sum(kind == "put" and key == MANIFEST for kind, key in log)
    assert len(proxy.conditional_puts()) == sent
    applied = Counter(request.body for request in proxy.conditional_puts(applied=True))
    assert all(times == 1 for times in applied.values())


def _check_index(store: ObjectStore, documents: dict[str, Document], *, folded: bool) -> None:
    verdict = Verdict()
    check_manifest(verdict, store, "after maintenance")
    assert not verdict.violations
    expected = sorted(documents)
    with Archive.open(store, auto_maintain=False) as archive:
        for order in ("-updated_at", "conversation_id"):
            entries = archive.list(None, order).items
            assert sorted(entry.conversation_id for entry in entries) == expected
            for entry in entries:
                assert entry == documents[entry.conversation_id].entry("metadata.user_id")
        if folded:
            assert archive.stats().open_intents == 0
    assert documents_of(store).keys() == documents.keys()


# --- the SDK's own retries -------------------------------------------------------------------------------------------


LOST = (Fault.DROP_AFTER, Fault.CUT, Fault.ERROR_AFTER, Fault.BUSY_AFTER, Fault.TWICE)


@pytest.mark.parametrize("where", ["environment", "client"])
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_no_retry_of_the_sdk_writes_twice(
    side: Side, proxy: Proxy, s3_endpoint: str, mode: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv("AWS_RETRY_MODE", mode)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    else:
        side.config["retries"] = {"mode": mode, "total_max_attempts": 8}
    store = side.direct("archive", s3_endpoint)
    make_archive(store)
    retries = side.client().meta.config.retries
    assert (retries["mode"], retries["total_max_attempts"]) == (mode, 8)
    archive, counting = side.open("archive")
    for number, fault in enumerate(LOST):
        case = Case(side, "archive", f"conv-{number}", store, archive)
        state = start(case.conversation_id)
        for revision in (1, 2):
            # The second is sent over a connection that was used before.
            state.add_message("user", f"turn {revision}")
            proxy.reset(once("PUT document", fault))
            counting.reset()
            entry = side.run(_whole(done(archive.save(state))))
            assert entry.revision == revision  # type: ignore[attr-defined]  # it is an Entry
            sends = counting.log.count(("put", document_key(case.conversation_id)))
            assert len(proxy.conditional_puts()) == sends == (1 if fault is Fault.TWICE else 2), fault
            assert len(proxy.conditional_puts(applied=True)) == 1, fault
        document = case.document()
        assert document is not None
        assert document.stamp.revision == 2
    # What is not conditional is the SDK's to repeat, as often as it was told to.
    proxy.reset(always("PUT intent", Fault.BUSY_BEFORE))
    with pytest.raises(UnavailableError):
        side.run(_whole(done(archive.save(start("never")))))
    assert [request.kind for request in proxy.received] == ["PUT intent"] * 8
    assert run_sync(fetch_document(Archive.open(store)._context, "never")) is None


def test_a_broken_connection_in_use_repeats_no_conditional_put(side: Side, proxy: Proxy, s3_endpoint: str) -> None:
    """HTTP clients repeat a request by themselves when a connection that was kept open turns out to be closed."""
    store = side.direct("archive", s3_endpoint)
    make_archive(store)
    archive, _ = side.open("archive")
    transport_store = archive._context.store
    for fault in (Fault.DROP_BEFORE, Fault.DROP_AFTER):
        proxy.reset()
        side.run(_whole(transport_store.get(MANIFEST)))  # the connection is open now
        proxy.reset(once("PUT document", fault))
        with pytest.raises(UnavailableError):
            side.run(_whole(transport_store.put(f"conversations/00/{fault.name}", b"x", if_none_match="*")))
        assert [request.kind for request in proxy.received] == ["PUT document"]
        assert len(proxy.forwarded) == (fault is Fault.DROP_AFTER)
    assert run_sync(store.list(LOG)).objects == []
