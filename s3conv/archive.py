"""`Archive` and `AsyncArchive`: everything that is done with an archive, for sync and async callers.

Law: the same methods side by side, one line each. What they do is in `core/`; which store and which runner they use
is decided here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Self, Unpack

from s3conv.bridge import InlineRunner, InlineTaskRunner, Runner, TaskRunner, ThreadRunner, iter_sync, run_sync
from s3conv.core import creation, editing, exporting, listing, loading, maintaining, saving, verifying
from s3conv.core import stats as statistics
from s3conv.core.calling import called, paused, streamed
from s3conv.core.comparing import Verified
from s3conv.core.context import Context, OnOperation
from s3conv.core.exporting import OnDamaged
from s3conv.core.index import Consistency
from s3conv.core.listing import Page
from s3conv.core.maintaining import Maintained
from s3conv.core.saving import OnConflict, OnlyIf
from s3conv.core.segments import IndexCache
from s3conv.core.stats import Stats
from s3conv.core.verifying import Progress
from s3conv.core.window import check_window
from s3conv.errors import InvalidInputError
from s3conv.format.document import Document
from s3conv.format.entry import Entry
from s3conv.format.filters import DEFAULT_ORDER, Where
from s3conv.model.state import ConversationState
from s3conv.store import ObjectStore, StoreOptions, open_store
from s3conv.store.call import Seconds

Create = ConversationState | Callable[[], ConversationState] | None
"""What `edit` begins with where there is no conversation yet: a state, or a function that makes one."""


class _Opened:
    """What both kinds of archive are made of."""

    def __init__(
        self,
        store: ObjectStore,
        runner: Runner,
        *,
        auto_maintain: bool = True,
        activity_window: float = 0.0,
        on_operation: OnOperation | None = None,
    ) -> None:
        self._context = Context(
            store,
            runner,
            auto_maintain=auto_maintain,
            activity_window=check_window(activity_window),
            on_operation=on_operation,
        )
        self._cache = IndexCache()

    @property
    def url(self) -> str:
        """The archive's URL."""
        return self._context.store.url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def _asynchronous(self, activity_window: float) -> AsyncArchive:
        """The same open archive for asynchronous callers, with an activity window of their own."""
        view = AsyncArchive(self._context.store, self._context.runner)
        view._context = replace(self._context, activity_window=check_window(activity_window))
        view._cache = self._cache
        return view


class Archive(_Opened):
    """An archive of conversations, for synchronous callers. May be used by many threads at once.

    Use `Archive.open` or `Archive.create`; as a context manager it closes itself.

    Every operation takes `timeout`: seconds that it may take, as many as it needs if None. When they are over before a
    request that it still needs, it raises `DeadlineExceededError`, which says what was not done; a write that was sent
    by then and not answered is an `OutcomeUnknownError`, as ever. What is given out one by one (`load_many`, `iterate`,
    `export`) has this time for all of it. Nothing goes on in the background afterwards.
    """

    @classmethod
    def open(
        cls,
        url: str | ObjectStore,
        *,
        auto_maintain: bool = True,
        activity_window: float = 0.0,
        on_operation: OnOperation | None = None,
        **options: Unpack[StoreOptions],
    ) -> Self:
        """Open an archive; no request is made before it is used.

        Args:
            url: `s3://bucket/prefix`, `file:///folder`, `memory://name`, or an `ObjectStore` of your own.
            auto_maintain: whether a list that meets more than 1,000 open intents folds some of them; see `maintain`.
            activity_window: for how many seconds, at most 3,600, the saves that follow a save need not announce
                themselves: 1 PUT instead of 2. For as long, and 120 seconds more, a list may show older counts, sizes
                and times of activity of such conversations, and filter and order by these.
            on_operation: is called with an `Operation` whenever an operation of this archive has ended, for metrics.
            options: for `s3://`: `client` (a boto3 client of your own) or `session`, `endpoint_url`, `region`,
                `addressing_style`, `kms_key_id`, `expected_bucket_owner`, `fan_out`; see `StoreOptions`.

        Raises:
            InvalidInputError: the URL or an option cannot be used.
        """
        store = open_store(url, **options) if isinstance(url, str) else _check_store(url)
        return cls(
            store,
            _sync_runner(store),
            auto_maintain=auto_maintain,
            activity_window=activity_window,
            on_operation=on_operation,
        )

    @classmethod
    def create(
        cls,
        url: str | ObjectStore,
        *,
        partition_by: str | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
        auto_maintain: bool = True,
        activity_window: float = 0.0,
        on_operation: OnOperation | None = None,
        **options: Unpack[StoreOptions],
    ) -> Self:
        """Make an archive, and open it.

        The store is tried first: one that ignores or races conditional writes is refused, because it loses updates.

        Args:
            url: as for `open`. An archive may not lie inside another one, nor around one, which is not looked for.
            partition_by: the metadata that most lists fix, such as "metadata.user_id"; it cannot be changed later.
            exist_ok: open the archive that is there already, if it has the same `partition_by`, or none is asked for.
            timeout: seconds that this may take; see the class.
            auto_maintain, activity_window, on_operation, options: as for `open`.

        Raises:
            AlreadyExistsError: there is one at this URL.
            UnsafeStoreError: the store cannot hold an archive; says what failed.
            InvalidInputError: the URL, an option or `partition_by` cannot be used.
        """
        archive = cls.open(
            url,
            auto_maintain=auto_maintain,
            activity_window=activity_window,
            on_operation=on_operation,
            **options,
        )
        racing = ThreadRunner(creation.WRITERS)
        try:
            with called(archive._context, "create", timeout) as context:
                run_sync(creation.create(context, racing, partition_by, exist_ok))
        except BaseException:
            archive.close()
            raise
        finally:
            racing.close()
        return archive

    def save(
        self, state: ConversationState, on_conflict: OnConflict = "raise", *, timeout: float | None = None
    ) -> Entry:
        """Save a conversation: 2 PUT requests; 3 if its partition changes, 1 inside an activity window (see `open`).

        Args:
            state: a new one, or one that was loaded or saved before; what it began from is noted on it.
            on_conflict: what to do if another writer has saved, created or deleted it meanwhile: "raise"; "merge" (the
                union of both trees, which `state` then holds too); or "overwrite" (what is in the archive is replaced).

        Returns:
            The conversation's entry in the index.

        Raises:
            ConflictError: another writer was there first; nothing was saved. Also for "merge" and "overwrite" where
                it was deleted (`error.deleted`), and for "merge" of conversations that begin differently.
            OutcomeUnknownError: the store gave no definite answer.
            InvalidInputError: the state cannot be stored; nothing was written.
        """
        with called(self._context, "save", timeout) as context:
            return run_sync(saving.save(context, state, on_conflict))

    def save_many(
        self,
        states: Iterable[ConversationState],
        on_conflict: OnConflict = "raise",
        *,
        timeout: float | None = None,
    ) -> list[Entry]:
        """Save many conversations, many at a time: one PUT each, and one more per 500 of one partition.

        Args:
            states: all are held in memory; no id twice.
            on_conflict: as for `save`, for each.

        Returns:
            Their entries, in the order of `states`.

        Raises:
            PartialSaveError: some were saved and some were not; names both, with the reasons.
            StorageError: none was saved; as for `save`.
        """
        with called(self._context, "save_many", timeout) as context:
            return run_sync(saving.save_many(context, states, on_conflict))

    def load(self, conversation_id: str, *, timeout: float | None = None) -> ConversationState | None:
        """Load a conversation: 1 GET request. None if there is none, or if it was deleted.

        Raises:
            CorruptError: the document is damaged.
            SchemaVersionError, UnsupportedFormatError: a newer s3conv wrote it.
            StoreError: the store refused, or did not answer.
        """
        with called(self._context, "load", timeout) as context:
            return run_sync(loading.load(context, conversation_id))

    def load_many(
        self, conversation_ids: Iterable[str], *, timeout: float | None = None
    ) -> Iterator[ConversationState | None]:
        """Load many conversations, many at a time, in the order of their ids; None for those that are not there."""
        return iter_sync(
            streamed(self._context, "load_many", timeout, lambda context: loading.load_many(context, conversation_ids))
        )

    @contextmanager
    def edit(
        self, conversation_id: str, create: Create = None, *, fresh: bool = False, timeout: Seconds = None
    ) -> Iterator[ConversationState]:
        """Load a conversation, hand it out to be changed, and save it; merged and retried if another writer saves too.

        What an edit has saved is kept, and the next edit of the conversation begins with it: 2 PUT requests in place
        of 1 GET and 2 PUT. If another process has saved meanwhile, that is noticed when this one saves, and merged;
        what is handed out may lack it, for up to 15 minutes after the edit before. A block that changes nothing in what
        was kept costs 1 GET, which asks whether that is still so.

        Args:
            conversation_id: which.
            create: a state, or a function that makes one, to begin with if there is none.
            fresh: load it all the same, for a block that decides by what it finds.
            timeout: for loading, and again for saving; the time in the block does not count. A function is asked both
                times: `lambda: context.get_remaining_time_in_millis() / 1000 - 1`.

        Raises:
            NotFoundError: there is none, and no `create`.
            ConflictError: it was deleted by another writer (`error.deleted`), or the block changed nothing, but another
                writer has changed what it was handed out: the next edit begins with what is there.
            StorageError: as for `save` with "merge". If the block raises, nothing is saved.
        """
        with called(self._context, "edit", timeout) as context:
            begun = run_sync(editing.begin(context, conversation_id, create, fresh))
            with paused(context):
                yield begun.state
            run_sync(editing.finish(context, begun))

    def delete(self, conversation_id: str, *, only_if: OnlyIf = None, timeout: float | None = None) -> bool:
        """Delete a conversation: 1 GET and 2 PUT requests. False if there is none, or `only_if` is against it.

        Its revisions go on counting if it is created again. Deleting is not erasing while the bucket keeps versions.

        Args:
            conversation_id: which.
            only_if: a function that is given the conversation as it is, and tells whether to delete it. What was
                chosen by a list may have changed since. If another writer is faster, it is asked again.

        Raises:
            ConflictError: other writers were faster again and again.
            CorruptError: the document is damaged.
            StorageError: as for `save`.
        """
        with called(self._context, "delete", timeout) as context:
            return run_sync(saving.delete(context, conversation_id, only_if))

    def list(
        self,
        where: Where | None = None,
        order: str = DEFAULT_ORDER,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
        consistency: Consistency = "latest",
        *,
        timeout: float | None = None,
    ) -> Page:
        """A page of the entries that meet all conditions, without opening documents.

        Args:
            where: conditions by field (`conversation_id`, `created_at`, `updated_at`, `message_count`, `branch_count`,
                `size`, `metadata.<path>`): a value, or operators among eq, ne, in, gt, gte, lt, lte, prefix, contains
                and exists with their operands. Types are respected: 1 is not "1". Times compare as instants.
            order: a field, descending with "-" before it; equal values by id.
            limit: entries on the page.
            offset: entries to skip; better use `after`.
            after: `next` of the page before, with the same `where` and `order`.
            consistency: "latest" shows every save that was acknowledged before; "snapshot" what was folded, which saves
                reading the log.

        Raises:
            InvalidInputError: a condition, the order or the cursor cannot be used.
            IndexDamagedError: an object of the index is missing or unreadable.
        """
        with called(self._context, "list", timeout) as context:
            return run_sync(listing.list_page(context, self._cache, where, order, limit, offset, after, consistency))

    def count(
        self, where: Where | None = None, consistency: Consistency = "latest", *, timeout: float | None = None
    ) -> int:
        """How many conversations meet all conditions; see `list`."""
        with called(self._context, "count", timeout) as context:
            return run_sync(listing.count(context, self._cache, where, consistency))

    def iterate(
        self,
        where: Where | None = None,
        order: str = DEFAULT_ORDER,
        consistency: Consistency = "latest",
        *,
        timeout: float | None = None,
    ) -> Iterator[Entry]:
        """All entries that meet all conditions; see `list`."""
        return iter_sync(
            streamed(
                self._context,
                "iterate",
                timeout,
                lambda context: listing.iterate(context, self._cache, where, order, consistency),
            )
        )

    def export(
        self,
        where: Where | None = None,
        *,
        skip: Container[str] = (),
        on_damaged: OnDamaged | None = None,
        timeout: float | None = None,
    ) -> Iterator[Document]:
        """The documents of all conversations that meet all conditions, many fetched at a time.

        Each has its `conversation_id`, its `line` (one line of s3conv's JSON lines) and its `state()`. They come by
        partition, within it oldest first (`created_at`), then by id; an archive without `partition_by` is one
        partition. Each comes once, as it is when it is fetched. One that met the conditions from before the export
        until after it is never missed, whatever is saved, moved or maintained meanwhile; one that is saved or changed
        meanwhile may or may not be there. After more than a day, what has moved to an earlier place comes late.

        Args:
            where: conditions; see `list`.
            skip: ids of conversations to leave out, such as those that an interrupted export has given already.
            on_damaged: is called with the id of each conversation whose document is damaged, missing though the index
                has it, or of a newer version, and with the error; the export then goes on without it.

        Raises:
            CorruptError: a document is damaged or missing, and there is no `on_damaged`.
            SchemaVersionError, UnsupportedFormatError: one was written by a newer s3conv, and there is none.
            IndexDamagedError: an object of the index is missing or unreadable.
        """
        return iter_sync(
            streamed(
                self._context,
                "export",
                timeout,
                lambda context: exporting.export(context, self._cache, where, skip, on_damaged),
            )
        )

    def maintain(self, *, timeout: float | None = None) -> Maintained:
        """Keep the index in order: fold open intents into segments, merge full runs, delete what no longer counts.

        Any number may run at once, beside readers and writers, and be killed anywhere. Run it by a schedule.

        Returns:
            What was done. `finished` is false if others were faster again and again, or if the `timeout` was over,
            for which it raises nothing: run it again later.

        Raises:
            IndexDamagedError: an object of the index is missing or unreadable.
            CorruptError: a document is unreadable that an intent names.
            AccessDeniedError: these credentials may not write to the index.
        """
        with called(self._context, "maintain", timeout) as context:
            return run_sync(maintaining.maintain(context, self._cache))

    def verify(
        self, repair: bool = False, progress: Progress | None = None, *, timeout: float | None = None
    ) -> Verified:
        """Compare documents, index, log and manifest, and report every difference. Reads all documents: 1 GET for each.

        Others may go on saving and maintaining: a difference is looked at again before it is reported.

        Args:
            repair: if there are differences that it can mend, rebuild the index from the documents, which are never
                changed; then compare again.
            progress: is told what is being done, and the share of it that is done, from 0 to 1.

        Returns:
            What was found. `differences` is empty if all is well; what a repair has mended is in `mended`.

        Raises:
            NotFoundError: there is no archive at this URL.
            UnavailableError: others changed the index again and again, or the store did not answer: try again later.
            UnsupportedFormatError: a repair would have to rewrite what a newer s3conv wrote: upgrade s3conv.
            AccessDeniedError: these credentials may not read, or for a repair not write to the index.
        """
        with called(self._context, "repair" if repair else "verify", timeout) as context:
            return run_sync(verifying.verify(context, repair, progress))

    def stats(self, *, timeout: float | None = None) -> Stats:
        """What the archive holds: conversations, messages, bytes, partitions, runs and open intents. Reads all rows."""
        with called(self._context, "stats", timeout) as context:
            return run_sync(statistics.stats(context, self._cache))

    def close(self) -> None:
        """Release connections and threads. A client that was passed in stays open."""
        self._context.runner.close()
        run_sync(self._context.store.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncArchive(_Opened):
    """An archive of conversations, for asynchronous callers. The methods of `Archive`, awaited; see there.

    `s3://` needs the extra `s3conv[aio]`. One archive belongs to one event loop.
    """

    @classmethod
    def open(
        cls,
        url: str | ObjectStore,
        *,
        auto_maintain: bool = True,
        activity_window: float = 0.0,
        on_operation: OnOperation | None = None,
        **options: Unpack[StoreOptions],
    ) -> Self:
        """As `Archive.open`; `client` and `session` are those of aioboto3. Not awaited."""
        store = open_store(url, asynchronous=True, **options) if isinstance(url, str) else _check_store(url)
        runner = InlineTaskRunner() if store.fan_out == 1 else TaskRunner()
        return cls(
            store, runner, auto_maintain=auto_maintain, activity_window=activity_window, on_operation=on_operation
        )

    @classmethod
    async def create(
        cls,
        url: str | ObjectStore,
        *,
        partition_by: str | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
        auto_maintain: bool = True,
        activity_window: float = 0.0,
        on_operation: OnOperation | None = None,
        **options: Unpack[StoreOptions],
    ) -> Self:
        """As `Archive.create`."""
        archive = cls.open(
            url,
            auto_maintain=auto_maintain,
            activity_window=activity_window,
            on_operation=on_operation,
            **options,
        )
        # A store without fan-out answers without suspending, so that only threads can make its writers race.
        racing = ThreadRunner(creation.WRITERS) if archive._context.store.fan_out == 1 else TaskRunner()
        try:
            with called(archive._context, "create", timeout) as context:
                await creation.create(context, racing, partition_by, exist_ok)
        except BaseException:
            await archive.close()
            raise
        finally:
            racing.close()
        return archive

    async def save(
        self, state: ConversationState, on_conflict: OnConflict = "raise", *, timeout: float | None = None
    ) -> Entry:
        """As `Archive.save`."""
        with called(self._context, "save", timeout) as context:
            return await saving.save(context, state, on_conflict)

    async def save_many(
        self,
        states: Iterable[ConversationState],
        on_conflict: OnConflict = "raise",
        *,
        timeout: float | None = None,
    ) -> list[Entry]:
        """As `Archive.save_many`."""
        with called(self._context, "save_many", timeout) as context:
            return await saving.save_many(context, states, on_conflict)

    async def load(self, conversation_id: str, *, timeout: float | None = None) -> ConversationState | None:
        """As `Archive.load`."""
        with called(self._context, "load", timeout) as context:
            return await loading.load(context, conversation_id)

    def load_many(
        self, conversation_ids: Iterable[str], *, timeout: float | None = None
    ) -> AsyncGenerator[ConversationState | None, None]:
        """As `Archive.load_many`, for `async for`."""
        return streamed(
            self._context, "load_many", timeout, lambda context: loading.load_many(context, conversation_ids)
        )

    @asynccontextmanager
    async def edit(
        self, conversation_id: str, create: Create = None, *, fresh: bool = False, timeout: Seconds = None
    ) -> AsyncIterator[ConversationState]:
        """As `Archive.edit`, for `async with`."""
        with called(self._context, "edit", timeout) as context:
            begun = await editing.begin(context, conversation_id, create, fresh)
            with paused(context):
                yield begun.state
            await editing.finish(context, begun)

    async def delete(self, conversation_id: str, *, only_if: OnlyIf = None, timeout: float | None = None) -> bool:
        """As `Archive.delete`."""
        with called(self._context, "delete", timeout) as context:
            return await saving.delete(context, conversation_id, only_if)

    async def list(
        self,
        where: Where | None = None,
        order: str = DEFAULT_ORDER,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
        consistency: Consistency = "latest",
        *,
        timeout: float | None = None,
    ) -> Page:
        """As `Archive.list`."""
        with called(self._context, "list", timeout) as context:
            return await listing.list_page(context, self._cache, where, order, limit, offset, after, consistency)

    async def count(
        self, where: Where | None = None, consistency: Consistency = "latest", *, timeout: float | None = None
    ) -> int:
        """As `Archive.count`."""
        with called(self._context, "count", timeout) as context:
            return await listing.count(context, self._cache, where, consistency)

    def iterate(
        self,
        where: Where | None = None,
        order: str = DEFAULT_ORDER,
        consistency: Consistency = "latest",
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[Entry, None]:
        """As `Archive.iterate`, for `async for`."""
        return streamed(
            self._context,
            "iterate",
            timeout,
            lambda context: listing.iterate(context, self._cache, where, order, consistency),
        )

    def export(
        self,
        where: Where | None = None,
        *,
        skip: Container[str] = (),
        on_damaged: OnDamaged | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Document, None]:
        """As `Archive.export`, for `async for`."""
        return streamed(
            self._context,
            "export",
            timeout,
            lambda context: exporting.export(context, self._cache, where, skip, on_damaged),
        )

    async def maintain(self, *, timeout: float | None = None) -> Maintained:
        """As `Archive.maintain`."""
        with called(self._context, "maintain", timeout) as context:
            return await maintaining.maintain(context, self._cache)

    async def verify(
        self, repair: bool = False, progress: Progress | None = None, *, timeout: float | None = None
    ) -> Verified:
        """As `Archive.verify`."""
        with called(self._context, "repair" if repair else "verify", timeout) as context:
            return await verifying.verify(context, repair, progress)

    async def stats(self, *, timeout: float | None = None) -> Stats:
        """As `Archive.stats`."""
        with called(self._context, "stats", timeout) as context:
            return await statistics.stats(context, self._cache)

    async def close(self) -> None:
        """As `Archive.close`."""
        self._context.runner.close()
        await self._context.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _check_store(store: ObjectStore) -> ObjectStore:
    if isinstance(store, PathLike):
        raise InvalidInputError(f"{str(store)!r} is a path: expected a URL, which path.absolute().as_uri() gives")
    if not hasattr(store, "fan_out"):
        raise InvalidInputError(f"url is {type(store).__name__}: expected a URL as a string, or an ObjectStore")
    return store


def _sync_runner(store: ObjectStore) -> Runner:
    return InlineRunner() if store.fan_out == 1 else ThreadRunner(store.fan_out)
