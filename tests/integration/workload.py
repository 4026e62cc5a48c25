"""Actors that use one archive through its public interface: writers, readers, maintainers. Also as a process each.

Law: what an actor wants is in its journal before it asks, and what it was told afterwards, so that a checker can hold
the archive to it. What it does is drawn from its seed. Only sizes and the day of collecting are scaled, so that a few
conversations fill many segments.

Conversations are of kinds, by what may happen to them, so that the checker can demand all that holds for each:

- `kept-…`: metadata never changes, nothing is deleted or overwritten: no message may ever be missing.
- `window-…`: the same, and some of their writers have an activity window.
- `moving-…`: the partition, the creation time and the title change.
- `brief-…`: deleted and created again.
- `own-…`: one writer's own, who overwrites it with states that are behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast
from unittest import mock

from s3conv import Archive, AsyncArchive, ConversationState
from s3conv.bridge import run_sync
from s3conv.core import folding, maintaining
from s3conv.core.log import OvertakenError, list_log
from s3conv.core.saving import OnConflict
from s3conv.core.segments import read_manifest
from s3conv.errors import (
    ConflictError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.format.entry import Entry
from s3conv.format.keys import LOG
from s3conv.format.manifest import RunName
from s3conv.model.state import IDEMPOTENCY_KEY
from tests.integration.journal import ACKED, CONFLICT, REFUSED, UNKNOWN, Call, Done, Journal, Listed, Loaded

R = TypeVar("R")

PARTITION_BY = "metadata.user_id"
USERS = ("a", "b", "c")
TITLES = ("open", "closed")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 60.0

KEPT = tuple(f"kept-{number}" for number in range(4))
MOVING = tuple(f"moving-{number}" for number in range(3))
BRIEF = tuple(f"brief-{number}" for number in range(2))
WINDOWED = tuple(f"window-{number}" for number in range(2))

SIZES: dict[str, float] = {
    "s3conv.format.blocks.BLOCK": 600,
    "s3conv.core.merging.SEGMENT": 500,
    "s3conv.core.merging.MAX_SEGMENT": 900,
    "s3conv.core.maintaining.FULL_TAIL": 900,
    "s3conv.core.maintaining.FULL_MID": 1500,
    "s3conv.core.maintaining.SLICE": 50,
    "s3conv.core.maintaining.INLINE": 40,
    "s3conv.core.maintaining.RECENT_ROWS": 6,
    "s3conv.core.folding.RECENT_ROWS": 6,
    # Their proportions are what keeps a stalled merge from naming what was collected.
    "s3conv.core.maintaining.RETIRED_KEPT": 4.0,
    "s3conv.core.maintaining.LATEST": 2.0,
    "s3conv.core.maintaining.SHORT_LIVED": 1.0,
    "s3conv.core.folding.SHORT_LIVED": 1.0,
}


@contextlib.contextmanager
def scaled() -> Iterator[None]:
    """The core with small sizes, and with seconds for the day after which old segments are deleted."""
    with contextlib.ExitStack() as stack:
        for target, value in SIZES.items():
            stack.enter_context(mock.patch(target, value))
        yield


async def done(value: R | Awaitable[R]) -> R:
    """What a method of `Archive` returned, or what one of `AsyncArchive` will return."""
    if isinstance(value, Awaitable):
        return await cast(Awaitable[R], value)
    return value


def user_of(conversation_id: str) -> str:
    """The partition that a conversation begins in."""
    return USERS[sum(conversation_id.encode()) % len(USERS)]


def start(conversation_id: str) -> ConversationState:
    """A new state; those of one id begin alike, so that they can be merged."""
    state = ConversationState.start(
        conversation_id, system="Hi", metadata={"user_id": user_of(conversation_id), "title": "open"}
    )
    state.message_tree.data.timestamp = state.created_at = FIRST
    return state


def tree_of(state: ConversationState) -> dict[str, str]:
    """Each message's parent, by their texts; a text that is there twice is given as one that nobody wrote."""
    parents: dict[str, str] = {}
    for place in state.message_tree.walk():
        text = str(place.data.message.content)
        parent = str(place.parent.data.message.content) if place.parent is not None else ""
        parents[f"{text} (again)" if text in parents else text] = parent
    return parents


@dataclass
class Held:
    """A state that its writer goes on with, and what is in it that was not acknowledged."""

    state: ConversationState
    carries: list[str] = field(default_factory=list)
    moves: bool = False


@dataclass
class Actor:
    """Somebody who uses the archive."""

    archive: Archive | AsyncArchive
    journal: Journal
    rng: Random
    windowed: bool = False
    faulty: bool = False
    """Whether the store may refuse: then that is no error of the test."""
    held: dict[str, Held] = field(default_factory=dict)

    @property
    def own(self) -> str:
        return f"own-{self.journal.actor}"


# --- writers ---------------------------------------------------------------------------------------------------------


async def writer(me: Actor, turns: int) -> None:
    """Saves in every way there is."""
    ways: dict[Callable[[Actor, str], Awaitable[None]], int] = {
        _loaded: 4,
        _edit: 3,
        _fresh: 2,
        _keyed: 2,
        _many: 2,
        _brief: 3,
        _overwrite: 2,
    }
    if me.windowed:
        ways = {_loaded: 4, _edit: 2}
    for turn in range(turns):
        (way,) = me.rng.choices(list(ways), list(ways.values()))
        try:
            await way(me, f"{me.journal.actor}.{turn}")
        except StoreError:
            if not me.faulty:
                raise
            # a load was refused


def _some_id(me: Actor) -> str:
    if me.windowed:
        return me.rng.choice(WINDOWED)
    return me.rng.choice((*KEPT, *KEPT, *MOVING, *WINDOWED))


def _now() -> datetime:
    return datetime.now(UTC)


def _change(me: Actor, state: ConversationState, message: str, key: str | None = None) -> tuple[str, bool]:
    """Add a message, and in a conversation that moves perhaps more. Returns its parent's text, and whether it moves."""
    current = state.get_current_node()
    assert current is not None
    parent = str(current.data.message.content)
    state.add_message("user", message, idempotency_key=key)
    if state.conversation_id not in MOVING or me.rng.random() < 0.4:
        return parent, False
    what = me.rng.random()
    if what < 0.5:
        state.metadata["user_id"] = me.rng.choice(USERS)
    elif what < 0.7:
        state.created_at = FIRST + timedelta(days=me.rng.randrange(3))
    else:
        state.metadata["title"] = me.rng.choice(TITLES)
    return parent, True


async def _loaded(me: Actor, message: str, conversation_id: str | None = None) -> None:
    """Loaded just now, or held since an earlier save: behind, or with messages that were not saved."""
    conversation_id = conversation_id or _some_id(me)
    held = me.held.pop(conversation_id, None)
    if held is None or me.rng.random() < 0.2:
        state = await done(me.archive.load(conversation_id))
        held = Held(state if state is not None else start(conversation_id))
    how: OnConflict = "merge" if held.carries or me.rng.random() < 0.5 else "raise"
    parent, moves = _change(me, held.state, message)
    held.moves |= moves
    call = me.journal.begin(
        conversation_id, how, message=message, parent=parent, carries=held.carries, moves=held.moves
    )
    await _told(me, call, lambda: me.archive.save(held.state, how))
    if call.outcome == ACKED:
        held.carries, held.moves = [], False
    elif "deleted" in call.error:
        return  # no save of this state can create it again
    else:
        held.carries = [*held.carries, message]
    if me.rng.random() < 0.6:
        me.held[conversation_id] = held


async def _edit(me: Actor, message: str) -> None:
    """`edit`, which merges and tries again."""
    conversation_id = _some_id(me)
    if isinstance(me.archive, Archive):
        stack = contextlib.ExitStack()
        block = me.archive.edit(conversation_id, create=lambda: start(conversation_id))
        state = stack.enter_context(block)
    else:
        stack_ = contextlib.AsyncExitStack()
        state = await stack_.enter_async_context(
            me.archive.edit(conversation_id, create=lambda: start(conversation_id))
        )
    parent, moves = _change(me, state, message)
    call = me.journal.begin(conversation_id, "edit", message=message, parent=parent, moves=moves)
    await _told(me, call, lambda: stack.close() if isinstance(me.archive, Archive) else stack_.aclose())


async def _fresh(me: Actor, message: str) -> None:
    """A state made anew for a conversation that may be there: merged with it."""
    conversation_id = _some_id(me)
    state = start(conversation_id)
    parent, _ = _change(me, state, message)
    # Without a base, its metadata wins.
    call = me.journal.begin(conversation_id, "merge", message=message, parent=parent, moves=conversation_id in MOVING)
    await _told(me, call, lambda: me.archive.save(state, "merge"))


async def _keyed(me: Actor, message: str) -> None:
    """The same message with an idempotency key, until it is there: as a client does that is called again."""
    conversation_id = me.rng.choice(KEPT)
    for _ in range(4):
        state = await done(me.archive.load(conversation_id)) or start(conversation_id)
        keys = {place.data.metadata.get(IDEMPOTENCY_KEY) for place in state.message_tree.walk()}
        if message in keys:
            return
        parent, _moves = _change(me, state, message, key=message)
        call = me.journal.begin(conversation_id, "merge", message=message, parent=parent)
        await _told(me, call, lambda state=state: me.archive.save(state, "merge"))  # type: ignore[misc]  # bound now
        # Acknowledged, it is sent again all the same: its caller may not have heard of it.
        if call.outcome == ACKED and me.rng.random() < 0.7:
            return


async def _many(me: Actor, message: str) -> None:
    """A batch."""
    states: list[ConversationState] = []
    for conversation_id in me.rng.sample((*KEPT, *MOVING, *WINDOWED), 3):
        state = await done(me.archive.load(conversation_id))
        states.append(state if state is not None else start(conversation_id))
    calls: list[Call] = []
    for state in states:
        parent, moves = _change(me, state, message)
        calls.append(me.journal.begin(state.conversation_id, "many", message=message, parent=parent, moves=moves))
    failed: dict[str, StorageError] = {}
    entries: dict[str, Entry] = {}
    try:
        for entry in await done(me.archive.save_many(states, "merge")):
            entries[entry.conversation_id] = entry
    except PartialSaveError as error:
        failed = error.failed
    except StorageError as error:
        failed = dict.fromkeys((call.conversation_id for call in calls), error)
    for call in calls:
        _note(me, call, failed.get(call.conversation_id), entries.get(call.conversation_id))


async def _brief(me: Actor, message: str) -> None:
    """Create, save, delete, create again."""
    conversation_id = me.rng.choice(BRIEF)
    what = me.rng.random()
    if what < 0.4:
        if conversation_id in me.held or await done(me.archive.load(conversation_id)) is not None:
            await _loaded(me, message, conversation_id)
            return
        what = 0.9
    if what < 0.7:
        call = me.journal.begin(conversation_id, "delete", moves=True)
        await _told(me, call, lambda: me.archive.delete(conversation_id))
        return
    state = start(conversation_id)
    parent, _ = _change(me, state, message)
    how: OnConflict = me.rng.choice(("raise", "merge"))
    call = me.journal.begin(conversation_id, how, message=message, parent=parent)
    await _told(me, call, lambda: me.archive.save(state, how))


async def _overwrite(me: Actor, message: str) -> None:
    """A conversation of one's own: overwritten with a state that is behind it, or saved and refused for that."""
    held = me.held.pop(me.own, None)
    found = held.state if held is not None else await done(me.archive.load(me.own))
    state = found if found is not None else start(me.own)
    parent, _ = _change(me, state, message)
    how: OnConflict = me.rng.choice(("overwrite", "raise"))
    call = me.journal.begin(me.own, how, message=message, parent=parent, tree=tree_of(state))
    await _told(me, call, lambda: me.archive.save(state, how))
    if me.rng.random() < 0.5 and call.outcome == ACKED:
        me.held[me.own] = Held(state)
        # Somebody else's save, as it were: what is held is behind now.
        other = await done(me.archive.load(me.own))
        if other is None:
            raise AssertionError(f"{me.own} is not there, although its save was acknowledged")
        parent, _ = _change(me, other, f"{message}+")
        call = me.journal.begin(me.own, "raise", message=f"{message}+", parent=parent, tree=tree_of(other))
        await _told(me, call, lambda: me.archive.save(other, "raise"))


async def _told(me: Actor, call: Call, ask: Callable[[], Any]) -> None:
    """Ask, and note what the answer was."""
    error: StorageError | None = None
    answer: object = None
    try:
        answer = await done(ask())
    except StorageError as raised:
        error = raised
    if answer is False:
        me.journal.end(call, REFUSED, error="there was nothing to delete")
        return
    _note(me, call, error, answer if isinstance(answer, Entry) else None)


def _note(me: Actor, call: Call, error: StorageError | None, entry: Entry | None) -> None:
    match error:
        case None:
            told = {"revision": entry.revision, "entry": entry.to_dict()} if entry is not None else {}
            me.journal.end(call, ACKED, **told)
        case ConflictError():
            me.journal.end(call, CONFLICT, error="deleted" if error.deleted else str(error))
        case OutcomeUnknownError():
            me.journal.end(call, UNKNOWN, error=str(error))
        case UnavailableError():
            me.journal.end(call, REFUSED, error=str(error))
        case StoreError() if me.faulty:
            me.journal.end(call, REFUSED, error=str(error))
        case _:
            raise error


# --- readers ---------------------------------------------------------------------------------------------------------


async def reader(me: Actor, turns: int) -> None:
    """Lists by every filter and order, counts, and loads."""
    for _ in range(turns):
        try:
            await _read(me)
        except StoreError as error:
            if not (me.faulty or isinstance(error, UnavailableError)):
                raise
            # Maintenance overtook it, again and again; or the store refused.
            me.journal.write("done", Done(me.journal.actor, "a read gave up", {}))


async def _read(me: Actor) -> None:
    rng = me.rng
    if rng.random() < 0.2:
        conversation_id = rng.choice((*KEPT, *WINDOWED))
        begin = time.monotonic()
        state = await done(me.archive.load(conversation_id))
        tree = tree_of(state) if state is not None else None
        me.journal.write("load", Loaded(me.journal.actor, conversation_id, tree, begin, time.monotonic()))
        return
    where: dict[str, Any] = {}
    if rng.random() < 0.5:
        where["metadata.user_id"] = rng.choice(USERS)
    if rng.random() < 0.3:
        where["metadata.title"] = rng.choice(TITLES)
    if rng.random() < 0.2:
        where["message_count"] = {"gte": rng.randrange(2, 30)}
    how = rng.choice(("list", "list", "iterate", "pages"))
    order = rng.choice(("-updated_at", "updated_at", "conversation_id", "-created_at", "message_count"))
    begin = time.monotonic()
    entries: list[Entry] = []
    if how == "list":
        entries = (await done(me.archive.list(where, order, 1000))).items
    elif how == "pages":
        order = rng.choice(("conversation_id", "-conversation_id"))  # no page shows what has moved to an earlier one
        after: str | None = None
        for _ in range(1000):
            page = await done(me.archive.list(where, order, 7, after=after))
            entries += page.items
            after = page.next
            if after is None:
                break
    elif isinstance(me.archive, Archive):
        entries = list(me.archive.iterate(where, order))
    else:
        entries = [entry async for entry in me.archive.iterate(where, order)]
    shown = [entry.to_dict() for entry in entries]
    me.journal.write("list", Listed(me.journal.actor, how, where, order, shown, begin, time.monotonic()))


# --- maintainers -----------------------------------------------------------------------------------------------------


async def maintainer(me: Actor, turns: int) -> None:
    """Maintains, and does each piece of it by itself."""
    for _ in range(turns):
        try:
            await _maintain(me)
        except StoreError:
            if not me.faulty:
                raise
            me.journal.write("done", Done(me.journal.actor, "maintenance gave up", {}))


async def _maintain(me: Actor) -> None:
    rng, context, cache = me.rng, me.archive._context, me.archive._cache
    what = rng.choice(("maintain", "maintain", "fold", "merge", "collect"))
    counts: dict[str, int] = {}
    # A piece by itself leaves it to its caller to begin again.
    with contextlib.suppress(OvertakenError):
        match what:
            case "maintain":
                counts = asdict(await done(me.archive.maintain()))
            case "fold":
                counts = asdict(await folding.fold(context, cache, await list_log(context, LOG)))
            case "merge":
                target: RunName = rng.choice(("mid", "base"))
                merged = await maintaining.merge(context, cache, await read_manifest(context), target)
                counts = {"segments_merged": merged.merged, "lost": 0} if merged else {"lost": 1}
            case _:
                collected = maintaining.Maintained()
                await maintaining._collect(context, collected)
                counts = {"deleted": collected.deleted}
    me.journal.write("done", Done(me.journal.actor, what, {name: int(count) for name, count in counts.items()}))


ROLES = {"writer": writer, "reader": reader, "maintainer": maintainer}


# --- a process of its own --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a process is started with."""

    role: str
    name: str
    seed: int
    turns: int
    url: str
    journals: str
    asynchronous: bool = False
    windowed: bool = False
    endpoint: str | None = None
    key: str = ""
    secret: str = ""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.integration.workload", json.dumps(asdict(self))]

    def options(self) -> dict[str, Any]:
        """How to open the archive."""
        window = WINDOW if self.windowed else 0.0
        if self.endpoint is None:
            return {"activity_window": window}
        given: dict[str, Any] = {
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "region_name": "us-east-1",
        }
        if self.asynchronous:
            import aioboto3

            return {"activity_window": window, "endpoint_url": self.endpoint, "session": aioboto3.Session(**given)}
        import boto3

        return {"activity_window": window, "endpoint_url": self.endpoint, "session": boto3.Session(**given)}


def run(job: Job) -> None:
    """Do a job in this process."""
    journal = Journal(Path(job.journals), job.name, beat=sys.stdout.fileno())
    rng = Random(job.seed)
    act = ROLES[job.role]

    async def whole() -> None:
        async with AsyncArchive.open(job.url, **job.options()) as archive:
            await act(Actor(archive, journal, rng, job.windowed), job.turns)

    with scaled():
        if job.asynchronous:
            asyncio.run(whole())
        else:
            with Archive.open(job.url, **job.options()) as archive:
                run_sync(act(Actor(archive, journal, rng, job.windowed), job.turns))


if __name__ == "__main__":
    os.environ.pop("AWS_PROFILE", None)
    run(Job(**json.loads(sys.argv[1])))
