"""Many writers of one conversation at once, on every kind of store: nothing is lost, doubled or moved."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from s3conv import Archive, AsyncArchive, ConversationState
from tests.servers.place import Place

WRITERS = 32
MESSAGES = 20
DELIVERED = 60

Seen = dict[str, str]
"""For each message that was added, what its writer saw as the one before it."""


def start() -> ConversationState:
    return ConversationState.start("shared", system="the first")


def add(state: ConversationState, writer: int, number: int, seen: Seen) -> None:
    """Add a message that is like no other, and note its parent."""
    said = f"{writer}.{number}"
    seen[said] = str(state.get_current_messages()[-1].content)
    state.add_message("user", said)


def check(state: ConversationState | None, seen: Seen) -> None:
    """All messages are there, each once, each under the parent that its writer saw."""
    assert state is not None
    found = Counter[str]()
    for node in state.message_tree.walk():
        if node.parent is not None:
            said = str(node.data.message.content)
            found[said] += 1
            assert node.parent.data.message.content == seen[said]
    assert len(seen) == WRITERS * MESSAGES
    assert found == Counter(seen.keys())


@pytest.fixture(params=["memory", "file", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    """A new archive that holds the conversation, in each kind of store."""
    if request.param == "s3":
        place: Place = request.getfixturevalue("s3_place")
        endpoint, session = request.getfixturevalue("s3_endpoint"), request.getfixturevalue("s3_session")
        archive = Archive.create(f"{place.url}/prod", session=session, endpoint_url=endpoint)
    else:
        url = {"memory": f"memory:/{tmp_path}", "file": f"file://{tmp_path}/archive"}[request.param]
        archive = Archive.create(url)
    with archive:
        archive.save(start())
        yield archive


def test_threads_at_once_lose_nothing(archive: Archive) -> None:
    seen: Seen = {}

    def write(writer: int) -> None:
        for number in range(MESSAGES):
            with archive.edit("shared") as state:
                add(state, writer, number, seen)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    check(archive.load("shared"), seen)


def test_tasks_at_once_lose_nothing(s3_endpoint: str | None, aio_session: Any, s3_place: Place) -> None:
    seen: Seen = {}

    async def body() -> None:
        url = f"{s3_place.url}/prod"
        async with await AsyncArchive.create(url, session=aio_session, endpoint_url=s3_endpoint) as archive:
            await archive.save(start())

            async def write(writer: int) -> None:
                for number in range(MESSAGES):
                    async with archive.edit("shared") as state:
                        add(state, writer, number, seen)

            await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
            check(await archive.load("shared"), seen)

    asyncio.run(body())


def test_a_message_delivered_more_than_once_is_there_once(archive: Archive) -> None:
    """Deliveries of one message run at once, among others, and some begin after another has ended."""
    keys = [f"delivery-{number}" for number in range(DELIVERED)]
    deliveries = [key for number, key in enumerate(keys) for _ in range(2 + number % 2)]
    order = Random(0)
    order.shuffle(deliveries)

    def deliver(key: str) -> None:
        with archive.edit("shared") as state:
            question = state.add_message("user", f"asked in {key}", idempotency_key=key)
            answer = f"{key}, answered"
            state.add_message("assistant", answer, parent=question, idempotency_key=answer)

    def write(number: int) -> None:
        with archive.edit("shared") as state:
            state.add_message("user", f"other {number}")

    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(deliver, key) for key in deliveries]
        jobs += [pool.submit(write, number) for number in range(DELIVERED)]
        for job in jobs:
            job.result()
    state = archive.load("shared")
    assert state is not None
    nodes = list(state.message_tree.walk())[1:]
    expected = [f"asked in {key}" for key in keys] + [f"{key}, answered" for key in keys]
    expected += [f"other {number}" for number in range(DELIVERED)]
    assert Counter(str(node.data.message.content) for node in nodes) == Counter(expected)
    for node in nodes:
        key = str(node.data.message.content).removesuffix(", answered")
        if key in keys:
            assert node.parent is not None
            assert node.parent.data.message.content == f"asked in {key}"
