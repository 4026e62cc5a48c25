"""How fast an archive is exported, beside the limit: fetching or reading its documents in a bare loop.

Conversations are made from the files of ../shared/data/sharegpt (`--data` for another folder), over and over with
ids of their own until there are as many as wanted. Every measurement is a fresh process; the limit and the exports take
turns, and what counts is their ratio within one turn.

- over S3: a loopback server in a process of its own (`fast_s3.py`); the limit is `get_object` of every document with
  the same client and the same window of requests in flight;
- from file://: the limit is a loop that opens each file, asks its size, reads and unpacks it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import zstandard
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fast_s3 import fast_s3
from benchmarks.measuring import in_fresh_process, peak_memory, print_machine, print_table
from s3conv import Archive, ConversationState
from s3conv.exchange.exporting import Job, export_files, export_stream
from s3conv.exchange.outputs import Folder
from s3conv.format.keys import document_key
from s3conv.store import StoreOptions
from s3conv.store.memory import MemoryStore

DATA = Path(__file__).parents[2] / "shared" / "data" / "sharegpt"
WINDOW = 32
BUCKET = "chats"
FORMATS = ("jsonl", "openai", "parquet")
FLOORS = {"s3 jsonl": 0.9, "s3 parquet": 0.7, "file jsonl": 0.5}
"""What the ratios to the limit are to be at least."""

Turns = list[tuple[str, str]]


# --- the archives ---------------------------------------------------------------------------------------------------


def read_chats(folder: Path) -> list[Turns]:
    """The conversations of a folder's files, as roles and texts."""
    found = []
    for path in sorted(folder.iterdir()):
        for value in _values(path):
            turns = [turn for turn in _turns(value) if turn[1]]
            if turns:
                found.append(turns)
    return found


def _values(path: Path) -> Iterator[Any]:
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as members:
            for member in members:
                file = members.extractfile(member)
                if file is not None:
                    yield json.load(file)
    elif path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    else:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        yield from json.loads(text)


def _turns(value: Any) -> Iterator[tuple[str, str]]:
    """The turns of a row, under whatever names its source has for them."""
    if isinstance(value, dict):
        value = value.get("conversations") or value.get("history") or value.get("utterances") or []
    for turn in value:
        if isinstance(turn, list):
            yield ("assistant" if turn[0] == "agent1" else "user"), str(turn[1])
        elif "user" in turn:
            yield "user", str(turn["user"])
            yield "assistant", str(turn["bot"])
        else:
            role = str(turn.get("from") or turn.get("role"))
            yield {"human": "user", "gpt": "assistant"}.get(role, role), str(turn.get("value") or turn.get("content"))


def build(folder: Path, chats: list[Turns], number: int) -> None:
    """Make an archive in a directory, and the list of its documents beside it."""
    store = MemoryStore()
    archive = Archive.create(store, partition_by="metadata.user_id")
    states = []
    for n, turns in enumerate(islice(cycle(chats), number)):
        begun = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=n)
        state = ConversationState.start(
            f"chat-{n:06}", metadata={"user_id": f"user-{n % 97}", "title": turns[0][1][:60]}
        )
        for step, (role, text) in enumerate(turns):
            state.add_message(role, text, timestamp=begun + timedelta(seconds=step))
        state.created_at = state.updated_at = begun
        states.append(state)
        if len(states) == 1000:
            archive.save_many(states)
            states = []
    archive.save_many(states)
    archive.maintain()
    for key, found in store._space.objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.body)
    entries = archive.iterate(order="created_at")
    keys = [document_key(entry.conversation_id) for entry in entries]
    (folder.parent / f"{folder.name}.keys").write_text("\n".join(keys))


# --- one measurement, in its own process ----------------------------------------------------------------------------


def client_of(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(max_pool_connections=WINDOW, s3={"addressing_style": "path"}),
    )


def get_all(client: Any, keys: list[str]) -> int:
    """Fetch every document, `WINDOW` at a time; their bytes."""

    def get(key: str) -> bytes:
        body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    size = 0
    jobs: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(WINDOW) as pool:
        for key in keys:
            if len(jobs) == WINDOW:
                size += len(jobs.popleft().result())
            jobs.append(pool.submit(get, key))
        return size + sum(len(job.result()) for job in jobs)


def read_all(folder: Path, keys: list[str]) -> int:
    """Read and unpack every document; their bytes, unpacked."""
    decompressor = zstandard.ZstdDecompressor()
    size = 0
    for key in keys:
        with open(f"{folder}/{key}", "rb", buffering=0) as file:
            body = file.read(os.fstat(file.fileno()).st_size)
        size += len(decompressor.decompress(body))
    return size


def export_all(archive: Archive, what: str) -> None:
    """Export everything. Lines go nowhere, as what is read and fetched goes nowhere; Parquet needs a file."""
    if what == "parquet":
        with tempfile.TemporaryDirectory() as out:
            export_files(archive, Folder(Path(out), ".working/"), Job(what), "all")
    else:
        with open(os.devnull, "wb", buffering=1 << 18) as nowhere:
            export_stream(archive, nowhere, Job(what))


def measure(what: str, where: str, folder: Path, endpoint: str) -> None:
    """Print seconds, peak memory in KiB, and seconds of the processor."""
    # Only the limit needs the keys, and they grow with the archive.
    keys = (folder.parent / f"{folder.name}.keys").read_text().split("\n") if what == "limit" else []
    client = client_of(endpoint) if where == "s3" else None
    options: StoreOptions = {"client": client} if client is not None else {}
    archive = Archive.open(f"s3://{BUCKET}" if client is not None else f"file://{folder}", **options)
    if what == "parquet":
        import pyarrow.parquet  # noqa: F401  # beforehand, as boto3 is: it is not what is measured
    began, worked = time.perf_counter(), time.process_time()
    if what != "limit":
        export_all(archive, what)
    elif client is not None:
        get_all(client, keys)
    else:
        read_all(folder, keys)
    print(time.perf_counter() - began, peak_memory(), time.process_time() - worked)


# --- all of them ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of conversations")
    parser.add_argument("--chats", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, where, folder, endpoint = given.one
        measure(what, where, Path(folder), endpoint)
        return
    if not given.data.is_dir():
        sys.exit(f"{given.data} is not here: name a folder of conversations with --data")
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        large, small = Path(temporary) / "large", Path(temporary) / "small"
        chats = read_chats(given.data)
        build(large, chats, given.chats)
        build(small, chats, given.chats // 10)
        print(f"{given.chats:,} conversations, {sum(one.stat().st_size for one in large.rglob('*.zst')):,} bytes\n")
        with fast_s3(BUCKET, large) as endpoint, fast_s3(BUCKET, small) as small_endpoint:
            compare(large, endpoint, given.chats, given.turns)
            grow((small, small_endpoint), (large, endpoint), given.chats)


def compare(folder: Path, endpoint: str, chats: int, turns: int) -> None:
    """Print how fast each format is, and its ratio to the limit of the same turn."""
    rows = []
    for where in ("s3", "file"):
        seconds: dict[str, list[list[float]]] = {what: [] for what in ("limit", *FORMATS)}
        for _ in range(turns):
            for what in seconds:
                seconds[what].append(in_fresh_process(__file__, "--one", what, where, str(folder), endpoint))
        for what, taken in seconds.items():
            ratios, worked = (
                [limit[kind] / mine[kind] for limit, mine in zip(seconds["limit"], taken, strict=True)]
                for kind in (0, 2)
            )
            floor = FLOORS.get(f"{where} {what}", "")
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            speed = chats / median(one[0] for one in taken)
            rows.append((where, what, f"{speed:,.0f}", f"{median(ratios):.2f}", spread, f"{median(worked):.2f}", floor))
    print_table(("from", "what", "chats/s", "of the limit", "from turn to turn", "by processor time", "at least"), rows)


def grow(small: tuple[Path, str], large: tuple[Path, str], chats: int) -> None:
    """Print the peak memory at a tenth of the conversations and at all."""
    rows = []
    for where in ("s3", "file"):
        for what in FORMATS:
            few, many = (
                in_fresh_process(__file__, "--one", what, where, str(folder), endpoint)[1]
                for folder, endpoint in (small, large)
            )
            rows.append((where, what, f"{few:,.0f}", f"{many:,.0f}", f"{many / few:.2f}"))
    print()
    print_table(("from", "what", f"KiB at {chats // 10:,}", f"KiB at {chats:,}", "growth (at most 1.2)"), rows)


if __name__ == "__main__":
    main()
