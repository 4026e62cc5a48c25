"""One core, two callers: coroutines that never suspend finish in one step, and fan-out is bounded and ordered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from s3conv import AsyncArchive, ConversationState
from s3conv.bridge import (
    InlineRunner,
    InlineTaskRunner,
    Runner,
    TaskRunner,
    ThreadRunner,
    iter_sync,
    ordered_map,
    run_sync,
)
from s3conv.store import Contended, Written
from s3conv.store.memory import MemoryStore

RUNNERS: list[Callable[[], Runner]] = [InlineRunner, lambda: ThreadRunner(4)]


async def double(number: int) -> int:
    return 2 * number


async def fail_on_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


async def collect(runner: Runner, window: int, upto: int = 10) -> list[int]:
    return [result async for result in ordered_map(runner, double, range(upto), window)]


def test_run_sync_returns_what_the_coroutine_returns_and_raises_what_it_raises() -> None:
    assert run_sync(double(21)) == 42
    with pytest.raises(ValueError, match="three"):
        run_sync(fail_on_three(3))


def test_run_sync_refuses_a_coroutine_that_suspends() -> None:
    async def suspend() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="its store is asynchronous"):
        run_sync(suspend())


def test_run_sync_works_inside_an_event_loop() -> None:
    async def within() -> int:
        return run_sync(double(4))

    assert asyncio.run(within()) == 8


def test_iter_sync_closes_its_source_when_it_is_left() -> None:
    closed = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield number
        finally:
            closed.append(True)

    iterator = iter_sync(numbers())
    assert next(iterator) == 0
    iterator.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True]
    assert list(iter_sync(numbers())) == list(range(10))


@pytest.mark.parametrize("make", RUNNERS)
@pytest.mark.parametrize("window", [1, 3, 100])
def test_results_come_in_the_order_of_the_arguments(make: Callable[[], Runner], window: int) -> None:
    runner = make()
    assert run_sync(collect(runner, window)) == [2 * number for number in range(10)]
    runner.close()
    assert asyncio.run(collect(TaskRunner(), window)) == [2 * number for number in range(10)]


@pytest.mark.parametrize("make", RUNNERS)
def test_arguments_may_come_as_a_stream_which_is_closed_in_the_end(make: Callable[[], Runner]) -> None:
    closed = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield number
        finally:
            closed.append(True)

    async def all_of(runner: Runner) -> list[int]:
        return [result async for result in ordered_map(runner, double, numbers(), 3)]

    async def two_of(runner: Runner) -> list[int]:
        results = ordered_map(runner, double, numbers(), 3)
        found = [await anext(results), await anext(results)]
        await results.aclose()
        return found

    runner = make()
    assert run_sync(all_of(runner)) == [2 * number for number in range(10)]
    assert run_sync(two_of(runner)) == [0, 2]
    runner.close()
    assert asyncio.run(all_of(TaskRunner())) == [2 * number for number in range(10)]
    assert len(closed) == 3


@pytest.mark.parametrize("make", RUNNERS)
def test_the_first_error_comes_in_its_place_and_everything_is_settled(make: Callable[[], Runner]) -> None:
    runner = make()
    seen = []

    async def consume() -> None:
        async for number in ordered_map(runner, fail_on_three, range(10), 4):
            seen.append(number)

    with pytest.raises(ValueError, match="three"):
        run_sync(consume())
    assert seen == [0, 1, 2]
    runner.close()


def test_no_more_jobs_are_begun_than_the_window_holds() -> None:
    begun: list[int] = []

    async def note(number: int) -> int:
        begun.append(number)
        return number

    async def consume_two() -> None:
        results = ordered_map(TaskRunner(), note, range(100), 5)
        await anext(results)
        await anext(results)
        await results.aclose()

    asyncio.run(consume_two())
    assert len(begun) <= 7


def test_tasks_left_behind_are_cancelled() -> None:
    cancelled = []

    async def wait(number: int) -> int:
        if number:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        return number

    async def consume_one() -> None:
        results = ordered_map(TaskRunner(), wait, range(4), 4)
        assert await anext(results) == 0
        await asyncio.sleep(0)
        await results.aclose()

    asyncio.run(consume_one())
    assert cancelled == [1, 2, 3]


def test_threads_really_run_at_once_and_know_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("here")
    barrier = threading.Barrier(4, timeout=30)

    async def meet(number: int) -> str:
        barrier.wait()
        return variable.get()

    async def consume(runner: Runner) -> list[str]:
        return [result async for result in ordered_map(runner, meet, range(4), 4)]

    runner = ThreadRunner(4)
    assert run_sync(consume(runner)) == ["here"] * 4
    runner.close()


def test_a_thread_runner_can_be_closed_twice_and_starts_again_when_used() -> None:
    runner = ThreadRunner(2)
    runner.close()
    assert run_sync(collect(runner, 2, 3)) == [0, 2, 4]
    runner.close()
    runner.close()


def test_a_turn_is_had_by_one_thread_at_a_time() -> None:
    runner = ThreadRunner(1)
    inside: list[int] = []
    most: list[int] = []

    async def take(number: int) -> None:
        async with runner.turn("a"):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: run_sync(take(number)), range(200)))
    assert set(most) == {1}
    assert not runner.has_turns("a")


def test_a_turn_is_had_by_one_task_at_a_time_also_where_one_is_cancelled() -> None:
    runner = TaskRunner()
    order: list[str] = []

    async def take(name: str, who: str) -> None:
        async with runner.turn(name):
            order.append(f"{who} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            order.append(f"{who} out")

    async def body() -> None:
        tasks = [asyncio.ensure_future(take("a", who)) for who in "xyz"]
        await asyncio.sleep(0)
        assert runner.has_turns("a")
        assert not runner.has_turns("b")
        await take("b", "other")  # waits for none of them
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(body())
    assert [one for one in order if "other" not in one] == ["x in", "x out", "z in", "z out"]
    assert not runner.has_turns("a")


def test_a_job_on_an_event_loop_may_wait_where_its_store_runs_inline() -> None:
    runner = InlineTaskRunner()
    begun: list[int] = []

    async def job(number: int) -> int:
        begun.append(number)
        await runner.sleep(0.0)
        return number * number

    async def whole() -> list[int]:
        return [square async for square in ordered_map(runner, job, [1, 2, 3], 1)]

    assert asyncio.run(whole()) == [1, 4, 9]
    assert begun == [1, 2, 3]


def test_what_is_settled_on_an_event_loop_does_not_run_any_more() -> None:
    runner = InlineTaskRunner()

    async def job(number: int) -> int:
        raise AssertionError("it was settled")

    async def whole() -> None:
        await runner.settle([runner.spawn(job, 1)])

    asyncio.run(whole())


def test_a_batch_waits_for_others_also_on_an_event_loop() -> None:
    class Busy(MemoryStore):
        refusals = 2

        async def put(self, key: str, body: bytes, **options: Any) -> Written:
            if key.startswith("conversations/") and self.refusals:
                self.refusals -= 1
                raise Contended("another write is in progress")
            return await super().put(key, body, **options)

    async def whole() -> list[int]:
        store = Busy()
        async with await AsyncArchive.create(store) as archive:
            states = [ConversationState.start(f"conv-{number}", system="Hi") for number in range(3)]
            return [entry.revision for entry in await archive.save_many(states)]

    assert asyncio.run(whole()) == [1, 1, 1]
