"""Stats: what an archive holds, told by its index alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from s3conv.core.context import Context
from s3conv.core.index import Hit, View, every_hit, on_view
from s3conv.core.log import list_log, read_intents
from s3conv.core.segments import IndexCache
from s3conv.format.filters import Filter
from s3conv.format.keys import LOG
from s3conv.format.manifest import RUNS


@dataclass(frozen=True, slots=True)
class RunStats:
    """One run of the index: its segments, their rows (superseded ones too), and their size in stored bytes."""

    segments: int
    rows: int
    size: int


@dataclass(slots=True)
class Stats:
    """What an archive holds. `size` is that of the documents, in stored bytes; ages are in seconds."""

    conversations: int = 0
    messages: int = 0
    size: int = 0
    partitions: int = 0
    generation: int = 0
    open_intents: int = 0
    oldest_intent_age: float | None = None
    runs: dict[str, RunStats] = field(default_factory=dict)


async def stats(context: Context, cache: IndexCache) -> Stats:
    """See `Archive.stats`."""

    async def gather(view: View) -> Stats:
        found = Stats()
        # 64 bits for each partition: a mistaken one in billions would only be counted once too little.
        partitions: set[int] = set()

        async def judge(hits: list[Hit]) -> None:
            found.conversations += len(hits)
            found.messages += sum(hit.entry.message_count for hit in hits)
            found.size += sum(hit.entry.size for hit in hits)
            partitions.update(hash(hit.key[0]) for hit in hits)

        await every_hit(view, Filter(), judge)
        found.partitions = len(partitions)
        manifest = view.now.manifest
        found.generation = manifest.generation
        for name in RUNS:
            run = manifest.run(name)
            found.runs[name] = RunStats(len(run), sum(one.rows for one in run), sum(one.size for one in run))
        return found

    found = await on_view(context, cache, Filter(), "latest", gather)
    listed = await list_log(context, LOG)
    by_id = await read_intents(context, cache.log, listed, gone=True)
    found.open_intents = sum(map(len, by_id.values()))
    found.oldest_intent_age = max((place.age for place in listed), default=None)
    return found
