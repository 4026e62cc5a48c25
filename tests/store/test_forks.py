"""A forked process: what it has of its parent's, and what it makes anew."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import boto3
import pytest

from s3conv import Archive, ConversationState
from s3conv.bridge import InlineRunner, Runner, ThreadRunner, run_sync
from s3conv.store import ObjectStore, open_store
from s3conv.store.local import LocalStore
from tests.servers.place import Place
from tests.store.faulty_server import Answer, FaultyServer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FOUND = Answer(200, b"body", {"ETag": '"e"', "Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"})


def begin(body: Callable[[], object]) -> tuple[int, int]:
    """Run `body` in a forked process, which ends by itself if that waits for ever; see `said`."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    signal.alarm(60)
    try:
        answer = str(body())
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(write, answer.encode())
    os._exit(0)


def said(begun: tuple[int, int]) -> str:
    """What the body gave, or the error that it raised."""
    with open(begun[1], "rb") as pipe:
        answer = pipe.read().decode()
    assert os.waitpid(begun[0], 0)[1] == 0, "it waited for ever"
    return answer


def body_of(store: ObjectStore) -> str:
    found = run_sync(store.get("a/b"))
    return "None" if found is None else found.body.decode()


def test_a_forked_process_uses_no_connection_of_its_parent(faulty: FaultyServer, s3_session: boto3.Session) -> None:
    faulty.respond = lambda method, path, number: FOUND
    store = open_store("s3://some-bucket/archive", session=s3_session, endpoint_url=faulty.url)
    assert body_of(store) == "body"
    assert said(begin(lambda: [body_of(store), body_of(store)])) == "['body', 'body']"
    assert body_of(store) == "body"
    parents, first, second, again = faulty.ports
    assert parents == again  # its connection is as it was
    assert first == second != parents
    run_sync(store.close())


def test_many_forked_processes_load_what_is_there(
    s3_endpoint: str | None, s3_session: boto3.Session, s3_place: Place
) -> None:
    archive = Archive.create(f"{s3_place.url}/archive", session=s3_session, endpoint_url=s3_endpoint)
    archive.save(ConversationState.start("there", system="x"))
    assert archive.load("there") is not None

    def look(conversation_id: str) -> str:
        return ", ".join(str(archive.load(conversation_id) is not None) for _ in range(5))

    names = ["there", "not there"] * 3
    begun = [begin(lambda name=name: look(name)) for name in names]  # type: ignore[misc]
    assert [said(one) for one in begun] == [", ".join([str(name == "there")] * 5) for name in names]
    archive.close()


def test_a_client_that_was_passed_in_is_refused_in_a_fork(faulty: FaultyServer, s3_session: boto3.Session) -> None:
    faulty.respond = lambda method, path, number: FOUND
    client = s3_session.client("s3", endpoint_url=faulty.url)
    store = open_store("s3://some-bucket/archive", client=client)
    assert said(begin(lambda: body_of(store))).startswith("InvalidInputError: client: this process was forked")
    assert faulty.requests == []
    assert body_of(store) == "body"
    client.close()


def test_an_asynchronous_client_that_was_passed_in_is_refused_in_a_fork(faulty: FaultyServer, aio_session: Any) -> None:
    faulty.respond = lambda method, path, number: FOUND

    async def whole() -> None:
        async with aio_session.client("s3", endpoint_url=faulty.url) as client:
            store = open_store("s3://some-bucket/archive", asynchronous=True, client=client)
            await store.get("a/b")
            answer = said(begin(lambda: asyncio.run(store.get("a/b"))))
            assert answer.startswith("InvalidInputError: client: this process was forked")
            await store.get("a/b")

    asyncio.run(whole())


def test_an_asynchronous_store_that_was_used_is_refused_in_a_fork(faulty: FaultyServer, aio_session: Any) -> None:
    faulty.respond = lambda method, path, number: FOUND

    async def whole() -> None:
        store = open_store("s3://some-bucket/archive", asynchronous=True, session=aio_session, endpoint_url=faulty.url)
        await store.get("a/b")
        answer = said(begin(lambda: asyncio.run(store.get("a/b"))))
        assert answer.startswith(
            "InvalidInputError: this archive is in use on another event loop: open one for each loop"
        )
        await store.get("a/b")
        await store.close()

    asyncio.run(whole())


def test_a_fork_while_a_thread_makes_the_client_makes_its_own(faulty: FaultyServer, s3_session: boto3.Session) -> None:
    faulty.respond = lambda method, path, number: FOUND
    parent, making, go_on = os.getpid(), Event(), Event()

    class Session:
        def client(self, *args: Any, **options: Any) -> Any:
            if os.getpid() == parent:
                making.set()
                assert go_on.wait(60)
            return s3_session.client(*args, **options)

    store = open_store("s3://some-bucket/archive", session=Session(), endpoint_url=faulty.url)
    thread = Thread(target=body_of, args=(store,))
    thread.start()
    assert making.wait(60)
    try:
        assert said(begin(lambda: body_of(store))) == "body"
    finally:
        go_on.set()
        thread.join()
        run_sync(store.close())


@pytest.mark.parametrize("runner", [ThreadRunner(2), InlineRunner()])
def test_a_fork_waits_for_no_turn_that_a_thread_of_its_parent_has(runner: Runner) -> None:
    has_it, go_on = Event(), Event()

    async def take_turn(meanwhile: Callable[[], object]) -> str:
        async with runner.turn("conversation"):
            meanwhile()
        return "had it"

    def hold() -> None:
        has_it.set()
        assert go_on.wait(60)

    thread = Thread(target=lambda: run_sync(take_turn(hold)))
    thread.start()
    assert has_it.wait(60)
    try:
        assert said(begin(lambda: run_sync(take_turn(lambda: None)))) == "had it"
    finally:
        go_on.set()
        thread.join()


def test_a_fork_keeps_no_file_locked_that_a_thread_of_its_parent_has_locked(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    run_sync(store.put("a/b", b"1"))
    read, write = os.pipe()
    with store._locked("a/b"):
        child = begin(lambda: os.read(read, 1))  # it lives on, and does nothing
    for lock in (tmp_path / ".s3conv" / "locks").iterdir():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(write, b"1")
    assert said(child) == "b'1'"
