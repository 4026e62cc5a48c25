"""What list, filter, count and maintenance cost in archives of 1,000, 100,000 and 1,000,000 chats.

Builds the archives in `file://` (see `chats.py`: all that is in them is made up), with all three runs, `recent` and 500
open intents, and measures each question cold (a fresh `Archive`, nothing remembered but the descriptor) and warm (asked
again). With `--s3` the same archives are served by a loopback S3 server that adds 20 ms to each request. Figures of
open intents are given apart ("3 + 500"): they are those of the writers at that moment, and do not grow with the
archive.

*Series* is counted, not timed: the question is asked once more through a store that answers in ticks, all requests that
are waiting (32 at most at once) with each tick. It is the number of ticks, those that answered nothing but intents
apart. The milliseconds are the best of a few; the system has the files in its own cache.

Exits 1 if a target of the index is missed at the largest size that was measured, or if a search finds something else
than what was built.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import chats
from benchmarks.chats import Facts
from benchmarks.measuring import in_fresh_process, print_machine, print_table
from benchmarks.slow_s3 import METADATA, slow_s3
from s3conv import Archive, AsyncArchive
from s3conv.bridge import run_sync
from s3conv.core.folding import fold
from s3conv.core.listing import Page
from s3conv.core.log import list_log
from s3conv.core.maintaining import merge
from s3conv.core.segments import read_manifest
from s3conv.format.entry import Intent, encode_intent, sort_key
from s3conv.format.keys import LOG, intent_key, log_prefix
from s3conv.format.manifest import RUNS
from s3conv.store import Listing, ObjectHead, ObjectStore, StoredObject, Written, open_store
from s3conv.store.counting import CountingStore

SIZES = (1_000, 100_000, 1_000_000)
DELAY = 0.02
FAN_OUT = 32
PAGE = 20
FOLDED = 10_000
YOUNG = 20.0
"""Seconds after which the open intents are announced anew: older than 60 s, each would be confirmed by its document."""

PATIENCE = 3.0
"""Seconds of measuring after which a figure is not measured again."""

Finding = Page | int


# --- stores that watch ----------------------------------------------------------------------------------------------


class Meter(CountingStore):
    """Counts the reading of open intents apart."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.intents = self.intent_bytes = 0

    def reset(self) -> None:
        super().reset()
        self.intents = self.intent_bytes = 0

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        found = await super().get(key, if_none_match=if_none_match, span=span)
        if key.startswith(LOG):
            with self._lock:
                self.intents += 1
                self.intent_bytes += len(found.body) if found else 0
        return found


class TickingStore:
    """An `ObjectStore` that answers all requests that wait, and then those that came of these: a tick each time."""

    fan_out = FAN_OUT

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.ticks = self.intent_ticks = 0
        self._waiting: list[tuple[bool, asyncio.Future[None]]] = []
        self._clock: asyncio.Task[None] | None = None

    async def _turn(self, intent: bool = False) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((intent, future))
        if self._clock is None:
            self._clock = asyncio.ensure_future(self._tick())
        await future

    async def _tick(self) -> None:
        idle, seen = 0, 0
        while idle < 20:  # rounds of the event loop: until no task has anything left to ask
            await asyncio.sleep(0)
            idle = idle + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
        answered, self._waiting, self._clock = self._waiting, [], None
        if all(intent for intent, _ in answered):
            self.intent_ticks += 1
        else:
            self.ticks += 1
        for _, future in answered:
            future.set_result(None)

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        await self._turn(key.startswith(LOG))
        return await self.inner.get(key, if_none_match=if_none_match, span=span)

    async def head(self, key: str) -> ObjectHead | None:
        await self._turn()
        return await self.inner.head(key)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        await self._turn()
        return await self.inner.put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._turn()
        await self.inner.delete(keys)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        await self._turn()
        return await self.inner.list(prefix, after=after)

    async def enclosing(self, name: str) -> Sequence[str]:
        await self._turn()
        return await self.inner.enclosing(name)

    async def close(self) -> None:
        await self.inner.close()


# --- where the archives are ------------------------------------------------------------------------------------------


class Place:
    """An archive that is measured: how to open it, and its open log, kept young."""

    def __init__(self, opened: Callable[[], ObjectStore], facts: Facts) -> None:
        self._opened = opened
        self._announced = 0.0
        self._log: dict[str, bytes] = {}
        for entry in facts.open_entries():
            partition, _, identity = sort_key(entry, chats.PARTITION_BY)
            key = intent_key(log_prefix(partition), identity, entry.revision, identity[:16])
            self._log[key] = encode_intent(Intent(entry=entry, write=identity[:16]))

    def store(self) -> ObjectStore:
        """The archive's store, its open log announced a moment ago."""
        store = self._opened()
        if time.monotonic() - self._announced > YOUNG:
            for key, body in self._log.items():
                run_sync(store.put(key, body))
            self._announced = time.monotonic()
        return store

    def cold(self) -> tuple[Archive, Meter]:
        """The archive as a process has it that has just begun: only the descriptor, one GET for each, is there."""
        meter = Meter(self.store())
        archive = Archive.open(meter, auto_maintain=False)
        run_sync(archive._context.descriptor())
        meter.reset()
        return archive, meter


@contextmanager
def s3_client(folder: Path) -> Iterator[object]:
    """A boto3 client of a slow server that serves a copy of a folder as the bucket `chats`."""
    with slow_s3("chats", folder, DELAY) as server, closing(new_client(server.url)) as client:
        yield client


def new_client(url: str) -> Any:
    """A boto3 client; made once, as a process does."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="made",
        aws_secret_access_key="up",
        config=Config(max_pool_connections=FAN_OUT, s3={"addressing_style": "path"}),
    )


# --- questions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What is asked of an archive, and how many entries have to be found."""

    name: str
    method: Literal["list", "count"]
    arguments: dict[str, Any]
    expected: int

    def found(self, answer: Finding) -> int:
        """How many were found; raises `AssertionError` if they are not as many as were built."""
        found = answer if isinstance(answer, int) else len(answer.items)
        assert found == self.expected, f"{self.name}: found {found:,}; expected {self.expected:,}"
        return found


def questions(facts: Facts, archive: Archive) -> list[Question]:
    """Those of the issue; `archive` is asked where the 50th page begins."""
    asked = []
    for kind, (user, number) in zip(("heavy", "middling", "rare"), facts.users, strict=True):
        own = number + facts.created_by("user_id", user)
        asked.append(
            Question(
                f"newest 20 of a {kind} user ({number:,})",
                "list",
                {"where": {"metadata.user_id": user}, "limit": PAGE},
                min(PAGE, own),
            )
        )
    asked.append(Question("newest 20 of all", "list", {"limit": PAGE}, PAGE))
    title = {"metadata.title": chats.PLANTED}
    asked.append(Question("title equals, few hits", "list", {"where": title, "limit": PAGE}, facts.title))
    first, last = chats.QUARTER
    quarter = {"created_at": {"gte": first, "lt": last}}
    asked.append(Question("created in a quarter, count", "count", {"where": quarter}, facts.quarter))
    asked.append(Question("created in a quarter, newest 20", "list", {"where": quarter, "limit": PAGE}, PAGE))
    tenant, number = facts.tenant
    number += facts.created_by("tenant", tenant)
    asked.append(Question("count of a tenant", "count", {"where": {"metadata.tenant": tenant}}, number))
    for size in (PAGE, 5 * PAGE):
        # The cursor is that of the last entry before, whatever the sizes of the pages that led there.
        before = archive.list(limit=49 * size).next
        left = max(0, min(size, facts.size + len(facts.created) - 49 * size))
        if before is not None:
            asked.append(Question(f"page 50 of all, {size} each", "list", {"limit": size, "after": before}, left))
    return asked


@dataclass
class Cost:
    """What one asking cost. Figures of open intents are apart."""

    requests: int = 0
    intents: int = 0
    series: int = 0
    intent_series: int = 0
    read: int = 0
    intent_bytes: int = 0
    milliseconds: float = 0.0


@dataclass
class Measured:
    """A question's costs."""

    name: str
    found: int
    cold: Cost
    warm: Cost


def measure(question: Question, place: Place, series: Place) -> Measured:
    """Ask cold and warm; `series` is the same archive where ticks are counted."""
    cold, warm = Cost(), Cost()
    found = 0
    cold_times: list[float] = []
    warm_times: list[float] = []
    while len(cold_times) < 3 and sum(cold_times) < PATIENCE:
        archive, meter = place.cold()
        for cost, times in ((cold, cold_times), (warm, warm_times)):
            meter.reset()
            started = time.perf_counter()
            answer: Finding = getattr(archive, question.method)(**question.arguments)
            times.append(time.perf_counter() - started)
            found = question.found(answer)
            cost.intents, cost.intent_bytes = meter.intents, meter.intent_bytes
            cost.requests = meter.counts.total() - meter.intents
            cost.read = meter.bytes_read - meter.intent_bytes
        archive.close()
    cold.milliseconds, warm.milliseconds = min(cold_times) * 1000, min(warm_times) * 1000
    asyncio.run(_count_series(question, series, (cold, warm)))
    return Measured(question.name, found, cold, warm)


async def _count_series(question: Question, place: Place, costs: Sequence[Cost]) -> None:
    store = TickingStore(place.store())
    archive = AsyncArchive.open(store, auto_maintain=False)
    await archive._context.descriptor()
    for cost in costs:
        store.reset()
        asked: Awaitable[Finding] = getattr(archive, question.method)(**question.arguments)
        question.found(await asked)
        cost.series, cost.intent_series = store.ticks, store.intent_ticks


# --- maintenance -----------------------------------------------------------------------------------------------------


@dataclass
class Maintenance:
    """What a fold of `FOLDED` intents and a merge of all runs cost."""

    fold_seconds: float
    fold_requests: int
    merge_seconds: float
    merge_rows: int
    merge_peak: int
    merge_requests: int

    @property
    def merge_rate(self) -> float:
        """Rows that are read in a second."""
        return self.merge_rows / self.merge_seconds


def measure_fold(store: ObjectStore) -> tuple[float, int]:
    """Fold all open intents; seconds and requests."""
    meter = Meter(store)
    with Archive.open(meter) as archive:
        run_sync(archive._context.descriptor())
        meter.reset()
        started = time.perf_counter()
        folded = run_sync(fold(archive._context, archive._cache, run_sync(list_log(archive._context, LOG))))
        seconds = time.perf_counter() - started
        assert (folded.folded, folded.pending, folded.finished) == (FOLDED, 0, True), folded
        return seconds, meter.counts.total()


def merge_here(url: str, endpoint: str | None) -> None:
    """Merge all runs into base, and print seconds, rows, peak KiB of this process and requests."""
    meter = Meter(open_store(url, client=new_client(endpoint)) if endpoint else open_store(url))
    with Archive.open(meter) as archive:
        now = run_sync(read_manifest(archive._context))
        meter.reset()
        started = time.perf_counter()
        merging = run_sync(merge(archive._context, archive._cache, now, "base"))
        seconds = time.perf_counter() - started
        assert merging is not None
        rows = sum(segment.rows for name in RUNS for segment in now.manifest.run(name))
        print(seconds, rows, own_peak(), meter.counts.total(), sum(segment.rows for segment in merging.written))


def own_peak() -> int:
    """The most memory that this program has had, in KiB (Linux). `ru_maxrss` is at least that of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def measure_maintenance(folder: Path, size: int, s3: bool) -> Maintenance:
    """Fold and merge in copies of the archive of a size."""
    folding, merging = folder / f"{size}-fold", folder / f"{size}-merge"
    with _cloned(folder / str(size), folding), _cloned(folder / str(size), merging):
        chats.clone(folder / "news", folding, ("conversations", "index/log", METADATA))
        if s3:
            with s3_client(folding) as client:
                seconds, requests = measure_fold(open_store("s3://chats", client=client))
            with slow_s3("chats", merging, DELAY) as server:
                merged = in_fresh_process(__file__, "--merge", "s3://chats", "--endpoint", server.url)
        else:
            seconds, requests = measure_fold(open_store(folding.as_uri()))
            merged = in_fresh_process(__file__, "--merge", merging.as_uri())
    merge_seconds, rows, peak, merge_requests, left = merged
    assert left == size, f"{left:,.0f} entries after the merge; expected {size:,}"
    return Maintenance(seconds, requests, merge_seconds, int(rows), int(peak), int(merge_requests))


@contextmanager
def _cloned(source: Path, target: Path) -> Iterator[None]:
    shutil.rmtree(target, ignore_errors=True)
    try:
        chats.clone(source, target, ("s3conv.json", "index/manifest.json", "index/segments", "index/recent"))
        yield
    finally:
        shutil.rmtree(target)


# --- a size ----------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """All figures of one size on one store."""

    size: int
    store: str
    stored: int
    rows: int
    measured: list[Measured] = field(default_factory=list)
    maintenance: Maintenance | None = None


def built(folder: Path, size: int) -> Facts:
    """The archive of a size, made if it is not there yet."""
    path = folder / f"{size}.json"
    if not path.exists():
        shutil.rmtree(folder / str(size), ignore_errors=True)
        started = time.perf_counter()
        facts = chats.build((folder / str(size)).as_uri(), size)
        chats.save_facts(path, facts)
        _say(f"built {size:,} chats in {time.perf_counter() - started:.0f} s")
    return chats.load_facts(path)


def build_news(folder: Path) -> None:
    """The chats that are folded, as files with their user metadata beside them."""
    news = folder / "news"
    if (news / METADATA).exists():
        return
    store = chats.saved_chats(FOLDED)
    metadata = {}
    for key, found in store._space.objects.items():
        path = news / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.body)
        metadata[key] = dict(found.metadata)
    (news / METADATA).write_text(json.dumps(metadata))


def run(folder: Path, size: int, s3: bool) -> Result:
    """Measure the archive of a size."""
    facts = built(folder, size)
    build_news(folder)
    archive_folder = folder / str(size)
    local = Place(lambda: open_store(archive_folder.as_uri()), facts)
    result = Result(size, "s3" if s3 else "file", facts.stored, facts.rows)
    shutil.rmtree(archive_folder / "index" / "log", ignore_errors=True)
    local.store()
    if s3:
        with s3_client(archive_folder) as client:
            _ask_all(result, facts, Place(lambda: open_store("s3://chats", client=client), facts), local)
    else:
        _ask_all(result, facts, local, local)
    result.maintenance = measure_maintenance(folder, size, s3)
    _say(f"measured {size:,} on {result.store}")
    return result


def _ask_all(result: Result, facts: Facts, place: Place, series: Place) -> None:
    archive, _ = place.cold()
    for question in questions(facts, archive):
        result.measured.append(measure(question, place, series))
    archive.close()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# --- what is printed -------------------------------------------------------------------------------------------------


def _apart(own: float, intents: float, form: str = ",") -> str:
    return f"{own:{form}} + {intents:{form}}" if intents else f"{own:{form}}"


def print_result(result: Result) -> None:
    """One size's table."""
    print(f"\n### {result.size:,} chats, {result.store}://\n")
    head = ("", "found", "requests", "series", "KB", "ms", "warm requests", "series", "KB", "ms")
    lines = []
    for one in result.measured:
        cells = [one.name, f"{one.found:,}"]
        for cost in (one.cold, one.warm):
            cells += [
                _apart(cost.requests, cost.intents),
                _apart(cost.series, cost.intent_series),
                _apart(cost.read / 1000, cost.intent_bytes / 1000, ",.0f"),
                f"{cost.milliseconds:,.0f}",
            ]
        lines.append(cells)
    print_table(head, lines)
    done = result.maintenance
    assert done is not None
    print(
        f"\nFold of {FOLDED:,} intents: {done.fold_seconds:.1f} s, {done.fold_requests:,} requests. Merge of "
        f"{done.merge_rows:,} rows: {done.merge_rate:,.0f} a second, peak {done.merge_peak / 1024:.0f} MB, "
        f"{done.merge_requests:,} requests. Stored: {result.stored / result.rows:.1f} bytes a row, "
        f"{result.stored / result.size:.1f} a chat."
    )


@dataclass(frozen=True)
class Target:
    """A figure that has to be reached."""

    name: str
    most: float
    figure: float

    @property
    def ok(self) -> bool:
        return self.figure <= self.most


def targets(results: Sequence[Result]) -> list[Target]:
    """Those of the issue, for the largest size."""
    last = max(results, key=lambda result: result.size)
    found: list[Target] = []
    by_name = {one.name: one for one in last.measured}
    users = [one for name, one in by_name.items() if " user " in name]
    everyone = by_name["newest 20 of all"]
    found += [
        Target("newest 20 of one user: requests", 8, max(one.cold.requests for one in users)),
        Target("newest 20 of one user: KB", 300, max(one.cold.read for one in users) / 1000),
        Target("newest 20 of all: requests", 4, everyone.cold.requests),
        Target("newest 20 of all: KB", 150, everyone.cold.read / 1000),
    ]
    if last.store == "file":  # through the slow server, most of the time is its own
        equality = by_name["title equals, few hits"].cold.milliseconds
        assert last.maintenance is not None
        found += [
            Target("title equals, few hits: ms", 1500, equality),
            Target("merge: microseconds a row (150,000 a second)", 1e6 / 150_000, 1e6 / last.maintenance.merge_rate),
        ]
    assert last.maintenance is not None
    found += [
        Target("merge: peak MB", 200, last.maintenance.merge_peak / 1024),
        Target("stored bytes a row", 90, last.stored / last.rows),
    ]
    smaller = [result for result in results if result.size * 10 <= last.size]
    if smaller:
        # What reads all of the index grows with it, by one request for each MiB.
        before = max(smaller, key=lambda result: result.size)
        grown = [
            now.cold.requests - then.cold.requests
            for now, then in zip(last.measured, before.measured, strict=False)
            if "newest 20 of a" in now.name
        ]
        found.append(Target(f"newest 20: more requests than at {before.size:,}", 2, max(grown)))
    return found


def print_targets(results: Sequence[Result], reached: Sequence[Target]) -> None:
    """Each target beside its figure."""
    print(f"\n### Targets, at {max(result.size for result in results):,} chats, {results[0].store}://\n")
    print_table(
        ("", "at most", "measured", ""),
        [(one.name, f"{one.most:,.4g}", f"{one.figure:,.4g}", "ok" if one.ok else "MISSED") for one in reached],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="CHATS")
    parser.add_argument("--s3", action="store_true", help="through a loopback S3 server that adds 20 ms a request")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was built here, and use it again")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--merge", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.merge:
        merge_here(given.merge, given.endpoint)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        results = [run(folder, size, given.s3) for size in sorted(given.sizes)]
    reached = targets(results)
    if given.json:
        print(
            json.dumps(
                {
                    "sizes": [asdict(one) for one in results],
                    "targets": [{**asdict(one), "ok": one.ok} for one in reached],
                }
            )
        )
    else:
        print_machine()
        for result in results:
            print_result(result)
        print_targets(results, reached)
    sys.exit(not all(one.ok for one in reached))


if __name__ == "__main__":
    main()
