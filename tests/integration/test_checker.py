"""The checker finds what is wrong: each thing that it is there for, planted into a run that was right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from s3conv import Archive, AsyncArchive
from s3conv.bridge import run_sync
from s3conv.core.segments import read_manifest
from s3conv.errors import IndexDamagedError
from s3conv.format.document import Stamp, encode_document
from s3conv.format.keys import document_key
from s3conv.store import ObjectStore
from s3conv.store.memory import MemoryStore
from tests.integration.checker import Verdict, check, check_manifest, documents_of
from tests.integration.journal import ACKED, CONFLICT, Journal, Journals, read_journals
from tests.integration.workload import BRIEF, KEPT, PARTITION_BY, ROLES, Actor, scaled, start


@dataclass
class Run:
    """A run of some actors in memory, one call after the other: enough to tell lies about."""

    store: ObjectStore
    journals: Journals


@pytest.fixture
def run(tmp_path: Path) -> Run:
    store = MemoryStore()
    Archive.create(store, partition_by=PARTITION_BY)

    async def whole() -> None:
        async with AsyncArchive.open(store) as archive, asyncio.TaskGroup() as group:
            for number, role in enumerate(("writer", "writer", "reader", "maintainer", "writer")):
                journal = Journal(tmp_path, f"{role}{number}")
                actor = Actor(archive, journal, Random(number))
                group.create_task(_and_close(actor, role))

    with scaled():
        asyncio.run(whole())
    return Run(store, read_journals(tmp_path))


async def _and_close(actor: Actor, role: str) -> None:
    await ROLES[role](actor, 30)
    actor.journal.close()


def test_what_is_right_is_found_right(run: Run) -> None:
    with scaled():
        verdict = check(run.store, run.journals)
    assert not verdict.violations
    assert len(verdict.checked) > 15


def _acknowledged_and_not_there(run: Run) -> None:
    call = next(call for call in run.journals.calls if call.conversation_id in KEPT and call.outcome == ACKED)
    run.journals.calls.append(replace(call, number=9999, message="never saved", revision=0))


def _a_conflict_that_was_applied(run: Run) -> None:
    call = next(call for call in run.journals.calls if call.conversation_id in KEPT and call.outcome == ACKED)
    call.outcome = CONFLICT


def _another_parent(run: Run) -> None:
    call = next(
        call for call in run.journals.calls if call.conversation_id in KEPT and call.outcome == ACKED and call.message
    )
    call.parent = "somebody else's"


def _a_message_twice(run: Run) -> None:
    with Archive.open(run.store).edit(KEPT[0]) as state:
        state.add_message("user", [str(place.data.message.content) for place in state.message_tree.walk()][-1])


def _written_twice(run: Run) -> None:
    archive = Archive.open(run.store)
    state = archive.load(KEPT[0])
    assert state is not None
    archive.save(state)


def _a_revision_told_twice(run: Run) -> None:
    first, second = [
        call for call in run.journals.calls if call.conversation_id in KEPT and call.outcome == ACKED and call.revision
    ][:2]
    second.revision, second.conversation_id = first.revision, first.conversation_id


def _deleted_and_there_again(run: Run) -> None:
    archive = Archive.open(run.store)
    state = start(BRIEF[0])
    with archive.edit(BRIEF[0], create=state) as edited:
        edited.add_message("user", "deleted")
    call = next(call for call in run.journals.calls if call.outcome == ACKED and call.message)
    base = replace(call, conversation_id=BRIEF[0], carries=[], revision=0, parent="Hi")
    run.journals.calls.append(replace(base, message="deleted", begin=1.0, end=2.0))
    run.journals.calls.append(replace(base, message="", how="delete", begin=3.0, end=4.0))


def _a_list_that_hides_one(run: Run) -> None:
    run.journals.lists[-1] = replace(
        run.journals.lists[-1], where={}, order="conversation_id", entries=[], begin=1e12, end=1e12
    )


def _a_list_that_is_behind(run: Run) -> None:
    listed = next(one for one in run.journals.lists if any(e["conversation_id"] in KEPT for e in one.entries))
    listed.begin = listed.end = 1e12
    for entry in listed.entries:
        entry["revision"] = 1


def _a_list_out_of_order(run: Run) -> None:
    listed = next(one for one in run.journals.lists if one.order == "conversation_id" and len(one.entries) > 1)
    listed.entries.reverse()


def _a_load_without_what_was_saved(run: Run) -> None:
    loaded = next(one for one in run.journals.loads if one.conversation_id in KEPT)
    loaded.begin, loaded.tree = 1e12, {}


def _a_document_past_the_index(run: Run) -> None:
    document = documents_of(run.store)[KEPT[0]]
    state = document.state()
    state.metadata["title"] = "changed by hand"
    stamp = document.stamp
    body = encode_document(state, Stamp(stamp.revision, stamp.write, stamp.lineage))
    run_sync(run.store.put(document_key(KEPT[0]), body, metadata=stamp.hints()))


LIES: dict[str, tuple[Callable[[Run], None], str]] = {
    "lost": (_acknowledged_and_not_there, "an acknowledged save is there"),
    "applied conflict": (_a_conflict_that_was_applied, "only what was acknowledged or left open is there, once"),
    "parent": (_another_parent, "a message is under its own parent"),
    "message twice": (_a_message_twice, "only what was acknowledged or left open is there, once"),
    "written twice": (_written_twice, "revisions count the saves"),
    "revision twice": (_a_revision_told_twice, "each acknowledged save has a revision of its own"),
    "undeleted": (_deleted_and_there_again, "what was deleted does not come back"),
    "hidden": (_a_list_that_hides_one, "a list shows what was acknowledged before it"),
    "behind": (_a_list_that_is_behind, "a list shows what was acknowledged before it"),
    "order": (_a_list_out_of_order, "a list keeps its order"),
    "load": (_a_load_without_what_was_saved, "a load shows what was acknowledged"),
    "index": (_a_document_past_the_index, "the index equals the documents"),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_what_is_wrong_is_found(run: Run, lie: str) -> None:
    plant, fact = LIES[lie]
    plant(run)
    with scaled():
        verdict = check(run.store, run.journals)
    assert fact in {violation.partition(":")[0] for violation in verdict.violations}


def test_a_manifest_that_dangles_is_found(run: Run) -> None:
    with Archive.open(run.store) as archive:
        archive.maintain()
        named = sorted(run_sync(read_manifest(archive._context)).manifest.named())
    run_sync(run.store.delete(named[:1]))
    verdict = Verdict()
    check_manifest(verdict, run.store, "now")
    assert verdict.violations == [f"the manifest never dangles: now: {named[:1]}"]
    with pytest.raises(IndexDamagedError), scaled():
        check(run.store, run.journals)
