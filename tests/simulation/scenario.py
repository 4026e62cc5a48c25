"""One simulation: writers, readers and maintainers on a few conversations, faults, and then what must hold.

Law: everything that is drawn by chance comes from the seed, so that a seed replays; and the core is the real one. Only
its sizes are changed (blocks, segments, runs, pages), so that a few conversations fill many of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from s3conv import ConversationState
from s3conv.bridge import run_sync
from s3conv.core import commit, editing, exporting, folding, listing, loading, log, maintaining, saving
from s3conv.core.commit import STALE
from s3conv.core.context import Context
from s3conv.core.folding import DEAD_MOVE
from s3conv.core.log import OvertakenError, list_log
from s3conv.core.segments import IndexCache, read_manifest
from s3conv.core.window import MARGIN
from s3conv.errors import (
    ConflictError,
    IndexDamagedError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    UnavailableError,
)
from s3conv.format.control import Descriptor
from s3conv.format.document import LINEAGE, Document, Stamp, encode_document
from s3conv.format.entry import Entry, Intent, encode_intent, entry_of, partition_of
from s3conv.format.keys import DESCRIPTOR, LOG, MANIFEST, document_key, intent_key, log_prefix
from s3conv.format.manifest import Manifest, RunName
from s3conv.store.base import Written
from tests.simulation.history import PARTITION_BY, Call, History
from tests.simulation.world import NO_FAULTS, Client, Faults, SimRunner, SimStore, World

IDS = ("c0", "c1", "c2")
USERS = ("a", "b")
TITLES = ("open", "closed")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 24 * 3600.0
WINDOW = 60.0

FAULTY = Faults(
    crash_before=0.004,
    crash_after=0.004,
    lost_request=0.01,
    lost_response=0.015,
    late=0.01,
    twice=0.01,
    contended=0.02,
    unavailable=0.01,
    server_error=0.01,
    pause=0.006,
)


@dataclass(frozen=True)
class Profile:
    """What a simulation is made of: how many of whom, what they do, and what goes wrong."""

    writers: tuple[int, int] = (2, 4)
    readers: tuple[int, int] = (1, 2)
    maintainers: tuple[int, int] = (1, 3)
    turns: tuple[int, int] = (2, 6)
    hows: tuple[str, ...] = ("raise", "merge", "merge", "overwrite", "edit", "delete", "many", "fresh")
    looks: tuple[str, ...] = ("list", "newest", "iterate", "export")
    windows: tuple[float, ...] = (0.0, 0.0, WINDOW)
    moves: float = 0.5
    """How many of the saves change more than activity."""
    ids: int = 3
    faults: Faults = FAULTY
    pauses: tuple[float, ...] = (5.0, 70.0, 200.0, 400.0, 3600.0, DAY + 7200)
    jumps: tuple[float, ...] = (61.0, 65.0, 130.0, 250.0, 1000.0, DAY + 10, 8 * DAY)
    jump: float = 0.008
    """How often time jumps, of all steps."""
    arrivals: float = 0.1
    """How often, of all steps, a request that is held up arrives."""
    full: tuple[int, int] = (450, 700)
    """Stored bytes beyond which the tail, and mid, are merged."""


PROFILES = {
    "everything": Profile(),
    "calm": Profile(faults=NO_FAULTS),
    "two of each": Profile(
        writers=(1, 2),
        readers=(1, 2),
        maintainers=(1, 2),
        turns=(3, 8),
        faults=Faults(pause=0.12),
        pauses=(2.0, 5.0, 9.0),
    ),
    "sleepers": Profile(
        writers=(1, 2),
        readers=(0, 1),
        maintainers=(2, 3),
        turns=(2, 5),
        faults=replace(FAULTY, pause=0.03),
        pauses=(70.0, DAY + 4000, 2 * DAY),
        jumps=(65.0, DAY / 2, DAY + 10),
        jump=0.03,
    ),
    "chats": Profile(
        looks=("list", "newest", "export", "export"),
        windows=(WINDOW,),
        hows=("raise", "merge", "merge", "edit"),
        moves=0.1,
        turns=(4, 9),
        jumps=(20.0, 65.0, 200.0),
        jump=0.02,
    ),
    "echoes": Profile(
        hows=("merge", "edit", "delete", "fresh"),
        faults=Faults(late=0.06, twice=0.1),
        arrivals=0.02,
        maintainers=(2, 3),
        turns=(3, 7),
        jumps=(20.0, 61.0, 300.0),
        ids=2,
    ),
    "a slow store": Profile(
        hows=("raise", "merge", "edit"), faults=Faults(late=0.1, contended=0.25), maintainers=(1, 1)
    ),
    "frozen": Profile(
        writers=(2, 2),
        readers=(0, 1),
        maintainers=(2, 2),
        turns=(2, 6),
        faults=Faults(pause=0.07),
        pauses=(DAY + 4000, 2 * DAY),
        jumps=(DAY / 2, DAY + 10),
        jump=0.04,
    ),
    "bursts": Profile(
        writers=(3, 4),
        hows=("raise", "merge", "burst"),
        ids=1,
        readers=(0, 0),
        faults=Faults(lost_response=0.08, pause=0.05),
    ),
    "batches": Profile(hows=("many", "many", "merge"), maintainers=(2, 3), faults=Faults(pause=0.1), pauses=(2.0, 9.0)),
    "thaws": Profile(
        writers=(2, 2),
        readers=(0, 0),
        maintainers=(2, 2),
        windows=(0.0,),
        faults=Faults(pause=0.04, late=0.15),
        pauses=(DAY + 10, DAY + 60, DAY + 200),
        jumps=(61.0,),
        arrivals=0.01,
    ),
    "exports": Profile(
        readers=(2, 3),
        looks=("export",),
        hows=("merge", "edit", "delete"),
        moves=1.0,
        faults=Faults(pause=0.1, crash_before=0.02),
        pauses=(20.0, 40.0, 200.0),
        jumps=(20.0, 65.0, DAY + 10),
    ),
    "mergers": Profile(
        maintainers=(3, 4),
        readers=(1, 1),
        looks=("list", "newest", "iterate"),
        turns=(4, 8),
        faults=Faults(pause=0.03),
        pauses=(5.0, 20.0),
    ),
    "graves": Profile(
        writers=(3, 4),
        readers=(2, 3),
        maintainers=(3, 4),
        turns=(4, 8),
        hows=("raise", "raise", "delete", "merge"),
        looks=("list", "newest"),
        moves=1.0,
        ids=2,
        faults=Faults(pause=0.1, crash_before=0.03),
        pauses=(5.0, 20.0),
        jump=0.0,
        full=(1, 1),
    ),
}

STEPS = 30_000


@contextlib.contextmanager
def scaled(world: World, profile: Profile) -> Iterator[None]:
    """The core with small sizes, and the store's clock that of the world, in whole seconds as in HTTP."""
    tail, mid = profile.full
    with contextlib.ExitStack() as stack:
        for target, value in (
            ("s3conv.store.memory.time", SimpleNamespace(time=lambda: float(int(world.now)))),
            ("s3conv.store.memory.LIST_PAGE", 3),
            ("s3conv.format.blocks.BLOCK", 300),
            ("s3conv.core.merging.SEGMENT", 250),
            ("s3conv.core.merging.MAX_SEGMENT", 400),
            ("s3conv.core.exporting.STREAMED", 1),
            ("s3conv.core.maintaining.FULL_TAIL", tail),
            ("s3conv.core.maintaining.FULL_MID", mid),
            ("s3conv.core.log.BATCH", 2),
            ("s3conv.core.maintaining.SLICE", 7),
            ("s3conv.core.maintaining.INLINE", 3),
            ("s3conv.core.maintaining.RECENT_ROWS", 2),
            ("s3conv.core.folding.RECENT_ROWS", 2),
        ):
            stack.enter_context(mock.patch(target, value))
        _count_branches(world, stack)
        yield


def _count_branches(world: World, stack: contextlib.ExitStack) -> None:
    """Count what the core decides, so that nobody takes a simulation for more than it was."""
    settle, keep, rows_of_plan = commit._settle, maintaining._Keep.__call__, folding._rows_of_plan
    ask, overtaken = log.ask_document, log.OvertakenError.__init__

    def counted_settle(*args: Any, **options: Any) -> Any:
        outcome = settle(*args, **options)
        world.counts["lost response settled" if isinstance(outcome, Written) else "real conflict"] += 1
        return outcome

    def counted_keep(self: Any, row: Any) -> bool:
        kept = keep(self, row)
        world.counts["dropped row of a deleted or moved one"] += not kept
        return kept

    def counted_rows(*args: Any) -> Any:
        rows = rows_of_plan(*args)
        world.counts["moved row"] += sum(b'"moved":true' in row.line for row in rows)
        return rows

    async def counted_ask(*args: Any) -> Any:
        world.counts["confirmation"] += 1
        return await ask(*args)

    def counted_overtaken(self: Any, key: str) -> None:
        world.counts["restart"] += 1
        overtaken(self, key)

    for target, piece in (
        ("s3conv.core.commit._settle", counted_settle),
        ("s3conv.core.maintaining._Keep.__call__", counted_keep),
        ("s3conv.core.folding._rows_of_plan", counted_rows),
        ("s3conv.core.log.ask_document", counted_ask),
        ("s3conv.core.log.OvertakenError.__init__", counted_overtaken),
    ):
        stack.enter_context(mock.patch(target, piece))


@dataclass
class Actor:
    """A client, with its open archive, and how it writes down what it does."""

    client: Client
    context: Context
    cache: IndexCache
    history: History
    call: Call | None = None
    moves: float = 0.5

    @property
    def world(self) -> World:
        return self.client.world


def actor(world: World, history: History, name: str, window: float = 0.0) -> Actor:
    """A new process."""
    client = Client(world, name, skew=world.rng.uniform(-600, 600))
    made = Actor(client, Context(SimStore(client), SimRunner(client)), IndexCache(), history)

    def new_id() -> str:
        fresh = f"{world.rng.getrandbits(64):016x}"
        if made.call is not None:
            made.call.writes.add(fresh)
        return fresh

    made.context.wall_clock = client.clock
    made.context.new_id = new_id
    made.context.jitter = world.rng.random
    made.context.activity_window = window
    made.context.kept.descriptor = DESCRIPTION
    return made


DESCRIPTION = Descriptor(PARTITION_BY, "simulated")


# --- the beginning ---------------------------------------------------------------------------------------------------


def start(conversation_id: str, user: str) -> ConversationState:
    """A new state; those of one id begin alike, so that they can be merged."""
    state = ConversationState.start(conversation_id, system="Hi", metadata={"user_id": user, "title": "open"})
    state.message_tree.data.timestamp = state.created_at = state.updated_at = FIRST
    return state


def prepare(world: World, history: History) -> None:
    """Write the archive, and some of the conversations at revisions where lineages are full."""
    put = world.inner.put
    run_sync(put(DESCRIPTOR, DESCRIPTION.encode()))
    run_sync(put(MANIFEST, Manifest(generation=0, nonce="first").encode()))
    for conversation_id in history.ids:
        revision = world.rng.choice((0, 0, 1, LINEAGE - 1, LINEAGE, 2 * LINEAGE))
        if not revision:
            continue
        state = start(conversation_id, world.rng.choice(USERS))
        lineage = tuple(f"{world.rng.getrandbits(64):016x}" for _ in range(min(revision, LINEAGE)))
        stamp = Stamp(revision, lineage[-1], lineage)
        body = encode_document(state, stamp)
        intent = Intent(entry=entry_of(state, revision, len(body), PARTITION_BY), write=stamp.write)
        prefix = log_prefix(partition_of(state.metadata, PARTITION_BY))
        run_sync(put(intent_key(prefix, conversation_id, revision, stamp.write), encode_intent(intent)))
        run_sync(put(document_key(conversation_id), body, metadata=stamp.hints()))
        history.announce(intent)
        history._document(body)
        history.acked[conversation_id] = history.told[conversation_id] = revision


# --- writers ---------------------------------------------------------------------------------------------------------


async def writer(me: Actor, profile: Profile) -> None:
    """Saves in every way there is, cold and warm."""
    rng = me.world.rng
    warm: dict[str, ConversationState] = {}
    for turn in range(rng.randint(*profile.turns)):
        conversation_id = rng.choice(me.history.ids)
        message = f"{me.client.name}.{turn}"
        how = rng.choice(profile.hows)
        me.moves = profile.moves
        try:
            if how == "delete":
                await _delete(me, conversation_id)
            elif how == "burst":
                for number in range(LINEAGE + 2):
                    await _save(me, conversation_id, f"{message}.{number}", "merge", warm)
            elif how == "edit":
                await _edit(me, conversation_id, message)
            elif how == "many":
                await _save_many(me, message)
            else:
                await _save(me, conversation_id, message, how, warm)
        except UnavailableError:
            continue  # a load had no answer


def _change(me: Actor, state: ConversationState, message: str) -> str:
    """Add a message, and perhaps change what the index knows. Returns the text of the message's parent."""
    rng = me.world.rng
    now = datetime.fromtimestamp(me.client.clock(), UTC)
    current = state.get_current_node()
    assert current is not None
    parent = str(current.data.message.content)
    state.add_message("user", message, timestamp=now)
    state.updated_at = now
    if rng.random() >= me.moves:
        return parent
    what = rng.random()
    if what < 0.4:
        state.metadata["user_id"] = rng.choice(USERS)
    elif what < 0.6:
        state.created_at = FIRST + timedelta(days=rng.randrange(3))
    else:
        state.metadata["title"] = rng.choice(TITLES)
    return parent


async def _save(me: Actor, conversation_id: str, message: str, how: str, warm: dict[str, ConversationState]) -> None:
    rng = me.world.rng
    state = warm.pop(conversation_id, None)
    if state is None or rng.random() < 0.3:
        state = None if how == "fresh" else await loading.load(me.context, conversation_id)
        state = state or start(conversation_id, rng.choice(USERS))
    mode: saving.OnConflict = "merge" if how == "fresh" else how  # type: ignore[assignment]  # one of the three
    call = Call(me.client.name, conversation_id, mode, message, _change(me, state, message))
    await _told(me, call, saving.save(me.context, state, mode))
    if call.outcome != "conflict" or rng.random() < 0.3:
        warm[conversation_id] = state


async def _edit(me: Actor, conversation_id: str, message: str) -> None:
    user = me.world.rng.choice(USERS)
    me.world.counts["edit of what was kept"] += me.context.kept.edited.has(conversation_id)
    edit = await editing.begin(me.context, conversation_id, lambda: start(conversation_id, user), fresh=False)
    call = Call(me.client.name, conversation_id, "merge", message, _change(me, edit.state, message))
    await _told(me, call, editing.finish(me.context, edit))


async def _delete(me: Actor, conversation_id: str) -> None:
    call = Call(me.client.name, conversation_id, "delete")
    me.history.calls.append(call)
    me.call = call
    try:
        if await saving.delete(me.context, conversation_id):
            call.outcome = "acked"
            me.history.acknowledge(call)
        else:
            call.outcome = "refused"  # there was nothing to delete
    except OutcomeUnknownError:
        call.outcome = "unknown"
    except ConflictError:
        call.outcome = "conflict"
    except UnavailableError:
        call.outcome = "refused"
    finally:
        me.call = None


async def _save_many(me: Actor, message: str) -> None:
    rng = me.world.rng
    states, calls = [], []
    for conversation_id in rng.sample(me.history.ids, min(2, len(me.history.ids))):
        state = await loading.load(me.context, conversation_id) or start(conversation_id, rng.choice(USERS))
        states.append(state)
        calls.append(Call(me.client.name, conversation_id, "merge", message, _change(me, state, message)))
    me.history.calls += calls
    # Both calls share the ids that are made: a version belongs to the one of its conversation.
    me.call = calls[0]
    for call in calls:
        call.writes = calls[0].writes
    failed: dict[str, StorageError] = {}
    try:
        await saving.save_many(me.context, states, "merge")
    except PartialSaveError as error:
        failed = error.failed
    except StorageError as error:
        failed = dict.fromkeys((call.conversation_id for call in calls), error)
    finally:
        me.call = None
    for call in calls:
        _note_outcome(me, call, failed.get(call.conversation_id))


async def _told(me: Actor, call: Call, save: Coroutine[Any, Any, Any]) -> None:
    me.history.calls.append(call)
    me.call = call
    error: StorageError | None = None
    try:
        await save
    except StorageError as raised:
        error = raised
    finally:
        me.call = None
    _note_outcome(me, call, error)


def _note_outcome(me: Actor, call: Call, error: StorageError | None) -> None:
    match error:
        case None:
            call.outcome = "acked"
            me.history.acknowledge(call)
        case ConflictError():
            call.outcome = "conflict"
        case OutcomeUnknownError():
            call.outcome = "unknown"
        case UnavailableError():
            call.outcome = "refused"
        case _:
            raise error
    me.world.counts[f"save {call.outcome}"] += 1
    me.world.note(f"{me.client.name} is told: {call.how} of {call.conversation_id} {call.outcome}")


# --- readers ---------------------------------------------------------------------------------------------------------


async def reader(me: Actor, profile: Profile) -> None:
    """Lists of every kind, and exports, each compared with what could have been seen."""
    rng = me.world.rng
    for _ in range(rng.randint(*profile.turns)):
        where: dict[str, Any] = {}
        if rng.random() < 0.6:
            where["metadata.user_id"] = rng.choice(USERS)
        if rng.random() < 0.4:
            where["metadata.title"] = rng.choice(TITLES)
        floors, began = dict(me.history.acked), me.world.now
        how = rng.choice(profile.looks)
        try:
            if how == "export":
                await _export(me, where)
                continue
            if how == "iterate":
                found = [entry async for entry in listing.iterate(me.context, me.cache, where, "created_at", "latest")]
            else:
                order = "-updated_at" if how == "newest" else "conversation_id"
                page = await listing.list_page(me.context, me.cache, where, order, 10, 0, None, "latest")
                found = page.items
        except UnavailableError:
            me.world.counts["list unavailable"] += 1
            continue
        me.world.counts["list"] += 1
        _check_list(me, where, floors, began, found)


def matches(where: dict[str, Any], entry: Entry) -> bool:
    """Whether an entry has the metadata of `where`, and at least as many messages as it may ask for."""
    metadata = {name.removeprefix("metadata."): value for name, value in where.items() if name != "message_count"}
    least = where.get("message_count", {"gte": 0})["gte"]
    return entry.message_count >= least and all(entry.metadata.get(name) == metadata[name] for name in metadata)


def _check_list(me: Actor, where: dict[str, Any], floors: dict[str, int], began: float, found: list[Entry]) -> None:
    """A list shows whatever was acknowledged before it began, or what came after that.

    A save in flight may show for a minute: also one that will lose, where the filter leaves out the winner.
    """
    history = me.history
    shown = {entry.conversation_id: entry for entry in found}
    if len(shown) < len(found):
        history.violation(f"a list of {where} shows a conversation twice")
    for conversation_id in history.ids:
        floor = floors.get(conversation_id, 0)
        announced = history.intents.get(conversation_id, ())
        possible = [version.entry for version in history.versions.get(conversation_id, ())]
        possible = [entry for entry in possible if entry.revision >= floor]
        # Not one of the acknowledged revision itself: that one is decided, by the document.
        possible += [one.intent.entry for one in announced if one.intent.entry.revision > floor]
        # Where a filter leaves out the row that says better.
        possible += [one.intent.entry for one in announced if one.date > began - STALE - 1 and where]
        entry = shown.get(conversation_id)
        if entry is None:
            if floor and not any(entry.deleted or not matches(where, entry) for entry in possible):
                history.violation(f"{me.client.name}: a list of {where} hides {conversation_id}, saved as {floor}")
        elif _bare(entry) not in [_bare(one) for one in possible]:
            history.violation(
                f"{me.client.name}: a list of {where} shows {conversation_id} at {entry.revision}; acknowledged {floor}"
            )


def _bare(entry: Entry) -> Entry:
    """Without its size, which an intent of an activity window knows about only."""
    return Entry(**{**{name: getattr(entry, name) for name in entry.__struct_fields__}, "size": 0})


async def _export(me: Actor, where: dict[str, Any]) -> None:
    """An export that takes its time, while others write and maintain."""
    history, rng = me.history, me.world.rng
    if rng.random() < 0.5:
        where["message_count"] = {"gte": rng.randint(2, 5)}
    me.context.store.fan_out = rng.choice((1, 3))
    floors = dict(history.told)
    before = {conversation_id: len(versions) for conversation_id, versions in history.versions.items()}
    found = []
    async for document in exporting.export(me.context, me.cache, where):
        found.append(document)
        if rng.random() < 0.3:
            await me.context.runner.sleep(rng.choice((1.0, 10.0, 100.0)))
    me.world.counts["export"] += 1
    _check_export(me, where, floors, before, found)


def _check_export(
    me: Actor, where: dict[str, Any], floors: dict[str, int], before: dict[str, int], found: list[Document]
) -> None:
    """An export gives what has met the filter since before it began, once, as it was meanwhile.

    Since before it began: as those who saved it were told. What nobody was told of, the index may not know yet.
    """
    history = me.history
    for conversation_id in history.ids:
        given = [one.stamp.revision for one in found if one.conversation_id == conversation_id]
        versions = history.versions.get(conversation_id, [])
        fit = {one.stamp.revision for one in versions if not one.deleted and matches(where, one.entry)}
        meanwhile = [one.stamp.revision for one in versions[max(before.get(conversation_id, 0) - 1, 0) :]]
        since = [one.stamp.revision for one in versions if one.stamp.revision >= floors.get(conversation_id, 0)]
        if len(given) > 1:
            history.violation(f"{me.client.name}: an export of {where} gives {conversation_id} twice, at {given}")
        elif given and given[0] not in fit.intersection(meanwhile):
            history.violation(f"{me.client.name}: an export of {where} gives {conversation_id} at {given[0]}")
        elif not given and conversation_id in floors and fit.issuperset(since):
            history.violation(f"{me.client.name}: an export of {where} misses {conversation_id} at {since}")


# --- maintainers -----------------------------------------------------------------------------------------------------


async def maintainer(me: Actor, profile: Profile) -> None:
    """Folds, merges and collects, by turns and all at once."""
    rng = me.world.rng
    for _ in range(rng.randint(*profile.turns)):
        await me.context.runner.sleep(rng.uniform(0, 30))
        try:
            await _maintain_somehow(me)
        except UnavailableError:
            me.world.counts["maintenance unavailable"] += 1


async def _maintain_somehow(me: Actor) -> None:
    rng, context, cache = me.world.rng, me.context, me.cache
    what = rng.random()
    if what < 0.5:
        done = await maintaining.maintain(context, cache)
        me.world.counts["folded"] += done.folded
        me.world.counts["dropped"] += done.dropped
        me.world.counts["merged"] += done.segments_merged
        me.world.counts["collected"] += done.deleted
        return
    with contextlib.suppress(OvertakenError):
        if what < 0.7:
            await folding.fold(context, cache, await list_log(context, LOG))
        elif what < 0.9:
            target: RunName = "mid" if rng.random() < 0.5 else "base"
            now = await read_manifest(context)
            merged = await maintaining.merge(context, cache, now, target)
            me.world.counts[f"merge into {target}" if merged else "merge lost"] += 1
        else:
            await maintaining._collect(context, maintaining.Maintained())


# --- one simulation --------------------------------------------------------------------------------------------------


def simulate(seed: int, profile: str | None = None) -> tuple[World, History]:
    """Run one seed, and check all that must hold. Violations are in the history.

    `profile` is one of `PROFILES`; if it is not given, the seed chooses.
    """
    world = World(seed)
    history = History(world, profile or world.rng.choice(list(PROFILES)))
    world.on_applied = history.applied
    with scaled(world, PROFILES[history.profile]):
        try:
            _simulate(world, history)
        except IndexDamagedError as error:  # whoever met it: nobody has damaged anything here
            history.violation(str(error))
    return world, history


def _simulate(world: World, history: History) -> None:
    rng = world.rng
    profile = PROFILES[history.profile]
    history.ids = IDS[: profile.ids]
    prepare(world, history)
    for kind, script, few in (
        ("w", writer, profile.writers),
        ("r", reader, profile.readers),
        ("m", maintainer, profile.maintainers),
    ):
        for number in range(rng.randint(*few)):
            me = actor(world, history, f"{kind}{number}", rng.choice(profile.windows))
            world.spawn(me.client, _watched(history, me, script(me, profile)))
    world.faults, world.pauses, world.arrivals = profile.faults, profile.pauses, profile.arrivals
    for _ in range(STEPS):
        if not world.step():
            break
        if rng.random() < profile.jump:
            world.jump(rng.choice(profile.jumps))
    else:
        raise AssertionError(f"no end after {STEPS} steps")
    if world.tasks:
        history.violation(f"{world.tasks[0].client.name} waits for ever")
    world.faults = NO_FAULTS
    history.check_calls()
    if profile.faults == NO_FAULTS:
        history.check_intents()
    world.jump(WINDOW + MARGIN + 1)  # every intent is old now, and no window is open
    _check_index(world, history, "before maintenance")
    world.jump(DAY + 1)
    _alone(world, history, lambda me: maintaining.maintain(me.context, me.cache))
    _check_index(world, history, "after maintenance")
    world.jump(DEAD_MOVE)
    _alone(world, history, lambda me: maintaining.maintain(me.context, me.cache))
    if left := [key for key in world.inner._space.keys if key.startswith(LOG)]:
        history.violation(f"after a month and maintenance the log still has {left}")
    _alone(world, history, _merge_all)
    world.jump(DAY + 4000)
    _alone(world, history, lambda me: maintaining.maintain(me.context, me.cache))
    _check_index(world, history, "after all was merged into base")


async def _watched(history: History, me: Actor, script: Coroutine[Any, Any, None]) -> None:
    """Anything but what a script expects is a violation."""
    try:
        await script
    except Exception as error:
        history.violation(f"{me.client.name}: {type(error).__name__}: {error}")


async def _merge_all(me: Actor) -> None:
    await maintaining.merge(me.context, me.cache, await read_manifest(me.context), "base")


def _alone(world: World, history: History, what: Any) -> Any:
    """What a new process gives when nothing else happens."""
    me = actor(world, history, "alone")
    task = world.spawn(me.client, what(me))
    world.run(STEPS)
    if task.error is not None:
        history.violation(f"alone: {type(task.error).__name__}: {task.error}")
    return task.value


def _check_index(world: World, history: History, when: str) -> None:
    """The index says what the documents say: of everything, of every partition, by every filter, newest first."""
    live = history.live()
    filters: list[dict[str, Any]] = [{}]
    filters += [{"metadata.user_id": user} for user in USERS]
    filters += [{"metadata.title": title} for title in TITLES]
    filters += [{"metadata.user_id": user, "metadata.title": title} for user in USERS for title in TITLES]
    for where in filters:
        expected = {key: entry for key, entry in live.items() if matches(where, entry)}
        for order in ("-updated_at", "conversation_id"):

            async def look(me: Actor, where: dict[str, Any] = where, order: str = order) -> list[Entry]:
                me.context.auto_maintain = False
                return (await listing.list_page(me.context, me.cache, where, order, 10, 0, None, "latest")).items

            found = {entry.conversation_id: entry for entry in _alone(world, history, look) or ()}
            for conversation_id in expected.keys() | found.keys():
                said, is_said = expected.get(conversation_id), found.get(conversation_id)
                if said == is_said:
                    continue
                if said is not None and is_said is not None and history.late(conversation_id):
                    activity = {"updated": "", "revision": 0, "message_count": 0, "branch_count": 0, "size": 0}
                    if _with(said, activity) == _with(is_said, activity):
                        world.counts["late and gone"] += 1
                        continue
                history.violation(
                    f"{when}, a list of {where} by {order}: {conversation_id} is {_short(is_said)}; "
                    f"its document says {_short(said)}"
                )


def _with(entry: Entry, fields: dict[str, Any]) -> Entry:
    return Entry(**{**{name: getattr(entry, name) for name in entry.__struct_fields__}, **fields})


def _short(entry: Entry | None) -> str:
    if entry is None:
        return "not there"
    return f"revision {entry.revision} {entry.metadata} {entry.updated[11:19]} of {entry.size} bytes"
