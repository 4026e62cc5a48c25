"""All actors at once against an S3 server, over both transports as shipped; and the race that everything rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from s3conv import Archive
from s3conv.bridge import run_sync
from s3conv.store import Contended, PreconditionFailed, open_store
from tests.integration.crowd import Crowd
from tests.integration.workload import start, tree_of

TURNS = 15
RACERS = 16


@pytest.mark.parametrize("kind", ["s3-boto3", "s3-aioboto3"])
def test_everybody_at_once(
    kind: str, tmp_path: Path, s3_endpoint: str, s3_session: boto3.Session, s3_client: Any, s3_bucket: str
) -> None:
    if kind == "s3-aioboto3":
        pytest.importorskip("aioboto3", reason="aioboto3 is not installed")
    url = f"s3://{s3_bucket}/some/archive"
    crowd = Crowd(url, s3_endpoint, credentials_of(s3_session), kind == "s3-aioboto3", tmp_path, TURNS)
    crowd.run(open_store(url, client=s3_client))


def credentials_of(session: boto3.Session) -> dict[str, str]:
    """What opens the test server, for sessions of one's own."""
    found = session.get_credentials()
    assert found is not None
    return {
        "aws_access_key_id": found.access_key,
        "aws_secret_access_key": found.secret_key or "",
        "region_name": session.region_name,
    }


@pytest.mark.parametrize("kind", ["s3-boto3", "s3-aioboto3"])
def test_of_many_writers_that_name_one_etag_one_wins(
    kind: str, request: pytest.FixtureRequest, s3_endpoint: str, s3_session: boto3.Session, s3_bucket: str
) -> None:
    asynchronous = kind == "s3-aioboto3"
    session = request.getfixturevalue("aio_session") if asynchronous else s3_session
    store = open_store(
        f"s3://{s3_bucket}/archive",
        asynchronous=asynchronous,
        session=session,
        endpoint_url=s3_endpoint,
        fan_out=RACERS,
    )

    async def write(number: int, conditions: dict[str, Any]) -> str | None:
        for _ in range(20):
            try:
                return (await store.put("k/a", b"%d after %s" % (number, str(conditions).encode()), **conditions)).etag
            except PreconditionFailed:
                return None
            except Contended:
                continue  # as the contract says: send the same again
        raise AssertionError("nobody could write")

    async def rounds(race: Callable[[dict[str, Any]], Coroutine[Any, Any, list[str | None]]]) -> None:
        conditions: dict[str, Any] = {"if_none_match": "*"}
        for _ in range(10):
            won = [etag for etag in await race(conditions) if etag is not None]
            assert len(won) == 1
            found = await store.get("k/a")
            assert found is not None
            assert found.etag == won[0]
            conditions = {"if_match": found.etag}

    if asynchronous:

        async def whole() -> None:
            await rounds(lambda conditions: _all([write(number, conditions) for number in range(RACERS)]))
            await store.close()

        asyncio.run(whole())
        return
    with ThreadPoolExecutor(RACERS) as pool:

        async def race(conditions: dict[str, Any]) -> list[str | None]:
            return list(pool.map(lambda number: run_sync(write(number, conditions)), range(RACERS)))

        run_sync(rounds(race))
    run_sync(store.close())


async def _all(writes: list[Coroutine[Any, Any, str | None]]) -> list[str | None]:
    return list(await asyncio.gather(*writes))


def test_many_writers_of_one_conversation_lose_nothing(s3_client: Any, s3_bucket: str) -> None:
    """The one case in which every save meets every other: all of them merge, and none gives up."""
    store = open_store(f"s3://{s3_bucket}/archive", client=s3_client)
    archive = Archive.create(store)

    def chat(number: int) -> None:
        for turn in range(3):
            with archive.edit("conv", create=lambda: start("conv")) as state:
                state.add_message("user", f"{number}.{turn}", parent="")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(chat, range(8)))
    state = archive.load("conv")
    assert state is not None
    assert tree_of(state) == {"Hi": "", **{f"{number}.{turn}": "Hi" for number in range(8) for turn in range(3)}}
    assert [entry.revision for entry in archive.list().items] == [24]
    archive.close()
