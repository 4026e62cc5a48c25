"""One core, two callers: coroutines that never suspend finish in one step, and fan-out is bounded and ordered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar

import pytest

from s3conv.bridge import InlineRunner, Runner, TaskRunner, ThreadRunner, iter_sync, ordered_map, run_sync

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
