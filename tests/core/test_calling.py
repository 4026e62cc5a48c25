"""Timeouts say what was and was not done, wherever the time runs out; and `on_operation` is told what was done."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import pytest

from s3conv import (
    Archive,
    AsyncArchive,
    ConflictError,
    ConversationState,
    DeadlineExceededError,
    InvalidInputError,
    Operation,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    UnavailableError,
)
from s3conv.bridge import InlineTaskRunner, run_sync
from s3conv.store import open_store
from s3conv.store.base import PreconditionFailed
from tests.core.conftest import NoWait
from tests.core.stores import ScriptedStore

R = TypeVar("R")

TIMEOUT = 5.0

NAMES = ("a", "b", "c", "new", "newer", "newest")


class Slow(ScriptedStore):
    """Lets the clock of the calls jump at one request: before it is answered, or without an answer."""

    def __init__(self) -> None:
        super().__init__(open_store("memory://"))
        self.now = 0.0
        self.at = -1
        self.answers = True
        self.applies = True
        self._number = 0

    def jump(self, at: int, *, answers: bool = True, applies: bool = True) -> None:
        """From now on, at request number `at` the time is over."""
        self.at, self.answers, self.applies, self._number = at, answers, applies, 0

    async def _slow(self, request: Coroutine[Any, Any, R]) -> R:
        number, self._number = self._number, self._number + 1
        if number != self.at:
            return await request
        self.now += 2 * TIMEOUT
        if self.answers:
            return await request
        if self.applies:
            await request
        else:
            request.close()
        raise UnavailableError("no answer")

    async def get(self, *args: Any, **named: Any) -> Any:
        return await self._slow(super().get(*args, **named))

    async def head(self, *args: Any, **named: Any) -> Any:
        return await self._slow(super().head(*args, **named))

    async def put(self, *args: Any, **named: Any) -> Any:
        return await self._slow(super().put(*args, **named))

    async def delete(self, *args: Any, **named: Any) -> Any:
        return await self._slow(super().delete(*args, **named))

    async def list(self, *args: Any, **named: Any) -> Any:
        return await self._slow(super().list(*args, **named))


def state(conversation_id: str, text: str = "hello") -> ConversationState:
    made = ConversationState.start(conversation_id, metadata={"user_id": "alice"})
    made.add_message("user", text)
    return made


@pytest.fixture
def slow() -> Slow:
    """A store with an archive of three conversations, one of them folded."""
    store = Slow()
    Archive.create(store, partition_by="metadata.user_id")
    archive = Archive(store, NoWait())
    archive.save(state("a"))
    archive.maintain()
    archive.save_many([state("b"), state("c")])
    return store


def opened(store: Slow) -> Archive:
    """As another process opens it."""
    archive = Archive(store, NoWait())
    archive._context.monotonic = lambda: store.now
    return archive


def _edit(archive: Archive) -> None:
    with archive.edit("a", timeout=TIMEOUT) as found:
        found.add_message("user", "more")


READS: dict[str, Callable[[Archive], object]] = {
    "load": lambda archive: archive.load("a", timeout=TIMEOUT),
    "load_many": lambda archive: list(archive.load_many(["a", "b"], timeout=TIMEOUT)),
    "list": lambda archive: archive.list(timeout=TIMEOUT),
    "count": lambda archive: archive.count(timeout=TIMEOUT),
    "iterate": lambda archive: list(archive.iterate(timeout=TIMEOUT)),
    "export": lambda archive: list(archive.export(timeout=TIMEOUT)),
    "verify": lambda archive: archive.verify(timeout=TIMEOUT),
    "stats": lambda archive: archive.stats(timeout=TIMEOUT),
}
WRITES: dict[str, Callable[[Archive], object]] = {
    "save": lambda archive: archive.save(state("new"), timeout=TIMEOUT),
    "save_many": lambda archive: archive.save_many([state("newer"), state("newest")], timeout=TIMEOUT),
    "edit": _edit,
    "delete": lambda archive: archive.delete("a", timeout=TIMEOUT),
}


def held(store: Slow) -> dict[str, int]:
    """All conversations, with the number of their messages; the index says the same as the documents.

    A list may yet show what was announced a moment ago, so that the documents are asked.
    """
    archive = Archive(store, NoWait())
    store.jump(-1)
    archive.maintain()
    assert archive.verify().differences == []
    found = {name: archive.load(name) for name in NAMES}
    return {name: len(one.to_dict()["nodes"]) for name, one in found.items() if one is not None}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("name", READS)
def test_a_read_ends_where_its_time_is_over_and_says_so(slow: Slow, name: str, answers: bool) -> None:
    slow.jump(-1)
    READS[name](opened(slow))
    requests = slow._number
    assert requests > 1
    for at in range(requests):
        slow.jump(at, answers=answers)
        if at == requests - 1 and answers:
            READS[name](opened(slow))  # the last answer came, though late: it is not thrown away
            continue
        with pytest.raises(DeadlineExceededError, match=f"{name} in memory.*5 s .* are over.*nothing was changed"):
            READS[name](opened(slow))
        assert slow._number == at + 1
    assert held(slow) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("name", WRITES)
def test_a_write_says_what_was_done_and_what_was_not(slow: Slow, name: str, answers: bool, applies: bool) -> None:
    slow.jump(-1)
    rehearsal = Slow()
    rehearsal.inner._space.objects.update(slow.inner._space.objects)  # type: ignore[attr-defined]  # of MemoryStore
    rehearsal.inner._space.keys += slow.inner._space.keys  # type: ignore[attr-defined]
    WRITES[name](opened(rehearsal))
    done = held(rehearsal)
    before = held(slow)
    assert done != before
    kinds = set()
    for at in range(20):
        slow.jump(at, answers=answers, applies=applies)
        error = outcome(lambda: WRITES[name](opened(slow)))
        kinds.add(type(error))
        if isinstance(error, DeadlineExceededError):
            assert held(slow) == before
            assert "5 s" in str(error)
            assert "not" in str(error).split("; ")[-1]
            continue
        if error is None:
            assert held(slow) == done
        elif isinstance(error, OutcomeUnknownError):
            assert not answers
            assert held(slow) == (done if applies else before)
        else:
            assert isinstance(error, PartialSaveError)
            assert {type(one) for one in error.failed.values()} <= {DeadlineExceededError, OutcomeUnknownError}
            assert set(error.saved) <= set(held(slow))
        break
    assert len(kinds) == 2  # first nothing was done, in the end something


def outcome(write: Callable[[], object]) -> Exception | None:
    """The error that it raises."""
    try:
        write()
    except StorageError as error:
        return error
    return None


def test_maintain_stops_in_time_and_says_what_it_did(slow: Slow) -> None:
    slow.jump(-1)
    writer = opened(slow)
    for name in NAMES[3:]:
        writer.save(state(name))
    expected = {entry.conversation_id: entry.message_count for entry in writer.iterate()}
    finished = False
    for at in range(200):
        slow.jump(at)
        done = opened(slow).maintain(timeout=TIMEOUT)
        assert {entry.conversation_id: entry.message_count for entry in Archive(slow, NoWait()).iterate()} == expected
        if slow._number <= at + 1 and done.finished:
            finished = True
            break
    assert finished
    assert held(slow) == expected


def test_an_edit_has_its_time_for_the_load_and_again_for_the_save(slow: Slow) -> None:
    archive = opened(slow)
    with archive.edit("a", timeout=TIMEOUT) as found:
        slow.now += 100 * TIMEOUT  # a model answers
        found.add_message("assistant", "at last")
    assert held(slow)["a"] == 2


def test_an_edit_asks_a_function_for_its_time_before_the_load_and_again_before_the_save(slow: Slow) -> None:
    left = [3 * TIMEOUT, 0.0]

    def late() -> None:
        with opened(slow).edit("a", timeout=lambda: left.pop(0)) as found:
            slow.jump(-1)
            found.add_message("assistant", "too late")

    with pytest.raises(
        DeadlineExceededError, match=r"edit in .* 0 s .* after 2 requests; what was changed was not saved"
    ):
        late()
    assert left == []
    assert slow._number == 0
    assert held(slow)["a"] == 1


class Crowded(NoWait):
    """Others of this process have their turn at a document, for longer than any call may take."""

    def turn(self, name: str, seconds: float = math.inf) -> NoReturn:
        raise TimeoutError


def test_a_refused_write_that_had_no_time_left_to_look_may_have_been_made(slow: Slow) -> None:
    """A proxy sends a PUT again whose answer it missed: the 412 is the echo of what was written."""
    slow.fail("put", "conversations/", PreconditionFailed("412"), applied=True)
    with pytest.raises(OutcomeUnknownError, match="echo"):
        Archive(slow, Crowded()).save(state("new"), "merge", timeout=TIMEOUT)
    assert held(slow)["new"] == 1


def test_no_wait_is_begun_that_would_end_too_late(slow: Slow) -> None:
    archive = opened(slow)
    archive._context.jitter = lambda: 1.0
    archive.load("a")
    slow.fail("put", "conversations/", UnavailableError("busy"), times=9)
    slow.jump(-1)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state("new"), timeout=0.12)  # 0.05 s is waited, 0.1 s is not
    assert archive._context.runner.slept == [0.05, 0.1]  # type: ignore[attr-defined]  # NoWait; its clock stands still


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none(slow: Slow, timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        opened(slow).load("a", timeout=timeout)


# --- on_operation ---------------------------------------------------------------------------------------------------


def test_every_operation_is_told_with_what_it_cost(slow: Slow) -> None:
    told: list[Operation] = []
    archive = Archive(slow, NoWait(), on_operation=told.append)
    archive.load("a")
    slow.reset()
    for name, use in {**WRITES, **READS}.items():
        slow.reset()
        told.clear()
        use(archive)
        (one,) = told
        assert (one.name, one.error, one.retries, one.conflicts) == (name, None, 0, 0)
        assert one.requests == sum(slow.counts.values())
        assert (one.bytes_read, one.bytes_written) == (slow.bytes_read, slow.bytes_written)
        assert one.milliseconds > 0
    told.clear()
    archive.maintain()
    archive.verify(repair=True)
    with Archive.create("memory://", on_operation=told.append):
        pass
    assert [one.name for one in told] == ["maintain", "repair", "create"]


def test_retries_and_conflicts_are_counted(slow: Slow) -> None:
    told: list[Operation] = []
    archive = Archive(slow, NoWait(), on_operation=told.append)
    archive.load("a")
    told.clear()
    slow.fail("put", "conversations/", UnavailableError("busy"), times=2)
    slow.before("put", "conversations/", lambda: None)
    archive.save(state("new"))
    assert (told[-1].requests, told[-1].retries, told[-1].conflicts) == (4, 2, 0)
    with archive.edit("a") as found:
        found.add_message("user", "ours")
        other = Archive(slow, NoWait())
        theirs = other.load("a")
        assert theirs is not None
        theirs.add_message("user", "theirs")
        other.save(theirs)
    assert (told[-1].name, told[-1].conflicts, told[-1].error) == ("edit", 1, None)
    with pytest.raises(ConflictError):
        archive.save(state("a"))
    assert (told[-1].name, told[-1].conflicts, told[-1].error) == ("save", 1, "ConflictError")


def test_who_stops_iterating_has_made_no_error(slow: Slow) -> None:
    told: list[Operation] = []
    archive = Archive(slow, NoWait(), on_operation=told.append)
    for _ in archive.export():
        break
    assert [(one.name, one.error) for one in told] == [("export", None)]


def test_a_hook_that_fails_fails_nothing(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    def hook(operation: Operation) -> None:
        raise ZeroDivisionError

    assert Archive(slow, NoWait(), on_operation=hook).load("a") is not None
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.name, "load" in record.getMessage()) == ("s3conv", True)


def test_the_log_tells_the_same_without_content(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Operation] = []
    with caplog.at_level(logging.DEBUG, logger="s3conv"):
        Archive(slow, NoWait(), on_operation=told.append).save(state("secret id", "secret text"))
    (record,) = [record for record in caplog.records if record.name == "s3conv"]
    assert record.operation == told[0]  # type: ignore[attr-defined]  # given as `extra`
    assert "save: done after" in record.getMessage()
    assert "secret" not in caplog.text


def test_what_nobody_asked_about_is_not_counted(slow: Slow) -> None:
    archive = opened(slow)
    archive._context.monotonic = lambda: 1 // 0
    archive.load("a")
    assert [document.conversation_id for document in archive.export()] == ["a", "b", "c"]


def test_an_asynchronous_archive_does_the_same(slow: Slow) -> None:
    told: list[Operation] = []
    archive = AsyncArchive(slow, InlineTaskRunner(), on_operation=told.append)
    archive._context = replace(archive._context, monotonic=lambda: slow.now)

    async def body() -> None:
        assert await archive.load("a", timeout=TIMEOUT) is not None
        async with archive.edit("a", timeout=TIMEOUT) as found:
            found.add_message("user", "more")
        assert [one.conversation_id async for one in archive.iterate(timeout=TIMEOUT)]
        slow.jump(0)
        with pytest.raises(DeadlineExceededError):
            await archive.save(state("new"), timeout=TIMEOUT)

    run_sync(body())
    assert [(one.name, one.error) for one in told] == [
        ("load", None),
        ("edit", None),
        ("iterate", None),
        ("save", "DeadlineExceededError"),
    ]
