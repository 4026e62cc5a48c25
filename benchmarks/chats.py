"""Made-up chats: the entries and documents that `index_scale.py` measures the index with.

Everything here is MADE UP by a seeded random generator: no user, tenant, title or time is from a real archive. What is
meant to be like life is its shape. Some users have thousands of chats and most have a few (weight 1 / (rank + 30) over
50,000 users: of a million chats the first has some 4,000, the thousandth 130, the last 3). Ids are random, times have
microseconds, titles are four to six words of a small vocabulary. Of all chats 80 % have come to rest and lie in base;
16 % were changed since base was merged and lie in mid, 4 % since mid was and lie in the tail. Five in nine of those
changed had a row before, so that one row in ten is a superseded revision.
"""

from __future__ import annotations

import heapq
import json
import os
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from s3conv import Archive, ConversationState
from s3conv.bridge import run_sync
from s3conv.core.folding import RECENT_ROWS, write_recent
from s3conv.core.merging import Rows, of_list, write_segments
from s3conv.core.segments import read_manifest, swap_manifest
from s3conv.format.entry import Entry, index_time
from s3conv.format.manifest import RunName
from s3conv.format.rows import Row, encode_row
from s3conv.store.memory import MemoryStore

PARTITION_BY = "metadata.user_id"
USERS = 50_000
TENANTS = 200
OPEN = 500
"""Intents in the log of an archive that is queried."""

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
BASE = datetime(2025, 12, 1, tzinfo=UTC)
"""When base was last merged; what was changed later is in mid, or in the tail."""
MID = datetime(2025, 12, 28, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
"""When the tail was last folded; the open intents are later."""

QUARTER = (datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC))
"""The range that is searched for: about a seventh of all chats were created in it."""

PLANTED = "Renewing a passport before the trip to Lisbon"
"""A title that few chats have."""

_MODELS = ("haiku-4", "sonnet-4", "sonnet-4-5", "opus-4", "gpt-5", "gpt-5-mini", "o4-mini", "llama-4-70b")
_MODEL_WEIGHTS = list(accumulate((20, 18, 30, 6, 12, 8, 3, 3)))
_TAGS_TEXT = """
work private python sql draft review urgent school travel cooking health legal tax garden music support sales billing
onboarding research translation summary brainstorm bug
"""
_VERBS_TEXT = """
Fixing Writing Planning Comparing Explaining Debugging Translating Summarizing Choosing Designing Testing Drafting
Learning Cooking Rewriting Moving Sorting Measuring Checking Understanding Improving Building Naming Repairing
"""
_SMALL = ("a", "the", "my", "our", "an old", "new", "for", "with", "from", "about", "this", "two")
_WORDS_TEXT = """
account adapter agenda airport album algorithm allergy analysis apartment appeal archive argument array article backup
balcony bank battery bicycle birthday blog boiler book border bread bridge broken budget button cable cache cake
calendar camera campaign career carpet cat chapter chart checkout chess child class clause cleaner client cloud
cluster coffee column comment company compiler concert config contract cookie corner course cover cron curry customer
dashboard data database deadline debt deploy desk diagram diet dinner divorce docker doctor dog door driver duplicate
email engine English error essay exam excel exercise export fabric family farm fence fever field filter flat flight
flower folder font forecast form formula French friend function garage garden German ghost gift goal grammar grant
graph guest guide guitar hallway header heating hiking history holiday homework hotel house iframe import income index
insurance interview invoice Italian job joke journal json kettle keyboard kitchen kubernetes label lamp landlord
language laptop latency lawn leak lease lecture lemon letter library license list loan logger logo loop lunch machine
mail manager map marathon market math matrix meeting memory menu message migration mirror mobile model mortgage museum
neighbor network newsletter notebook novel nurse office onion opera order outline oven owner package painting pandas
paper parent parser partner party passport password path payment pension permit phone photo piano picture pipeline
pizza plan plant poem policy pool portfolio poster prime printer product profile project prompt proof proposal
protocol queue quiz react recipe refund regex rent report resume retry review ring roof room router routine salad
salary sample schedule schema school screen script season secret server session shelf ship shop shower signal sister
skill slide socket sofa soup Spanish speech spreadsheet sprint stack stairs startup statement stove strategy street
string style suitcase survey swift table tax teacher team tenant terraform test thesis ticket tiles timeline timeout
toast token tomato tooth tour train trip truck trust tutorial update upload user vacation vector vendor video visa
voice wall warranty water website wedding weekend widget window wine winter word workout worker yard yoga zone zoom
"""
_TAGS, _VERBS, _WORDS = _TAGS_TEXT.split(), _VERBS_TEXT.split(), _WORDS_TEXT.split()


def prose(draw: random.Random, characters: int) -> str:
    """Words in no order, as many characters of them as wanted."""
    return " ".join(draw.choice(_WORDS) for _ in range(characters))[:characters]


@dataclass
class Facts:
    """What is known of an archive that was built: what searches must find, and what the open log will hold.

    `users` are a heavy, a middling and a rare one with the number of their chats, `title`, `quarter` and `tenant` how
    many chats match; all without the open log, whose entries are `updated` (of chats in the runs) and `created`.
    """

    size: int
    users: list[tuple[str, int]]
    tenant: tuple[str, int]
    title: int
    quarter: int
    rows: int
    stored: int
    updated: list[dict[str, Any]]
    created: list[dict[str, Any]]

    def open_entries(self) -> list[Entry]:
        """The entries of the open intents."""
        return [msgspec.convert(one, Entry) for one in (*self.updated, *self.created)]

    def created_by(self, field: str, value: str) -> int:
        """How many of the chats that only the open log has carry this metadata."""
        return sum(one["metadata"][field] == value for one in self.created)


def user_name(rank: int) -> str:
    """The id of a user; the heavy ones lie scattered among the others."""
    return f"usr_{(rank + 1) * 2654435761 % 2**32:08x}"


def users_of(size: int, chance: random.Random) -> list[int]:
    """The rank of each chat's user."""
    weights = list(accumulate(1 / (rank + 30) for rank in range(USERS)))
    return chance.choices(range(USERS), cum_weights=weights, k=size)


class _Made:
    """Makes entries, one after the other, by a seed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.chance = random.Random(size)
        self.numbers = Counter(users_of(size, self.chance))
        self.made = 0

    def metadata(self, user: int) -> dict[str, Any]:
        chance = self.chance
        draw = chance.random
        if self.made % max(1, self.size // 5) == 0:
            title = PLANTED
        else:
            words = [_WORDS[int(draw() * len(_WORDS))] for _ in range(2 + int(draw() * 3))]
            title = f"{_VERBS[int(draw() * len(_VERBS))]} {_SMALL[int(draw() * len(_SMALL))]} {' '.join(words)}"
        self.made += 1
        return {
            "user_id": user_name(user),
            # Some tenants are large: the square of an even draw.
            "tenant": f"tenant-{int((user * 0.6180339887 % 1) ** 2 * TENANTS):03d}",
            "model": _MODELS[bisect_left(_MODEL_WEIGHTS, draw() * _MODEL_WEIGHTS[-1])],
            "title": title,
            "tags": sorted({_TAGS[int(draw() * len(_TAGS))] for _ in range(int(draw() * 4))}),
        }

    def entry(self, metadata: dict[str, Any], created: datetime, updated: datetime, revision: int) -> Entry:
        messages = 2 * revision + (self.chance.random() < 0.2)
        return Entry(
            conversation_id=f"{self.chance.getrandbits(122):031x}0",
            revision=revision,
            created=index_time(created),
            updated=index_time(updated),
            schema_version="1.1.0",
            message_count=messages,
            branch_count=1 + (self.chance.random() < 0.1),
            size=300 + int(messages * self.chance.uniform(120, 400)),
            metadata=metadata,
        )

    def chat(self, user: int) -> list[tuple[RunName, Entry]]:
        """A chat's rows, the oldest first."""
        chance = self.chance
        draw = chance.random()
        run: RunName = "base" if draw < 0.8 else "mid" if draw < 0.96 else "tail"
        begin, end = {"base": (BEGIN, BASE), "mid": (BASE, MID), "tail": (MID, END)}[run]
        had_row = run != "base" and chance.random() < 5 / 9
        if run == "base" or had_row:  # ever more chats as time goes by
            created = BEGIN + (BASE - BEGIN) * chance.random() ** 0.5
        else:
            created = begin + (end - begin) * chance.random()
        settled = min(created + timedelta(seconds=chance.lognormvariate(7, 2)), BASE if had_row else end)
        revision = 1 + int(chance.expovariate(1 / 4))
        entry = self.entry(self.metadata(user), created, settled, revision)
        if not had_row:
            return [(run, entry)]
        changed = begin + (end - begin) * chance.random()
        newer = msgspec.structs.replace(
            entry,
            revision=revision + 1,
            updated=index_time(changed),
            message_count=entry.message_count + 2,
            size=entry.size + 400,
        )
        return [("base", entry), (run, newer)]


@dataclass
class _Building:
    """What the builder notes while the rows pass by."""

    made: _Made
    facts: Facts
    mid: list[Row]
    tail: list[Row]
    newest: list[tuple[str, str, Row]]

    def base(self) -> Iterator[list[Row]]:
        """The rows of base in their order; those of mid and the tail are kept on the way."""
        facts, size = self.facts, self.made.size
        seen = 0
        for user in sorted(self.made.numbers, key=user_name):
            chats = [self.made.chat(user) for _ in range(self.made.numbers[user])]
            chats.sort(key=lambda chat: (chat[0][1].created, chat[0][1].conversation_id))
            base: list[Row] = []
            for chat in chats:
                for run, entry in chat:
                    key = (f'"{user_name(user)}"', entry.created, entry.conversation_id)
                    row = Row(key, entry.revision, entry.updated, False, encode_row(entry))
                    (base if run == "base" else self.mid if run == "mid" else self.tail).append(row)
                live = chat[-1][1]
                _keep_newest(self.newest, row)
                facts.title += live.metadata["title"] == PLANTED
                facts.quarter += index_time(QUARTER[0]) <= live.created < index_time(QUARTER[1])
                self.note_open(seen, size, user, live)
                seen += 1
                facts.rows += len(chat)
            yield base

    def note_open(self, number: int, size: int, user: int, live: Entry) -> None:
        """Of some chats, spread over all, a save is open; and some of their users have begun another chat."""
        chance = self.made.chance
        every = max(1, size // (OPEN // 2))
        if number % every or len(self.facts.updated) >= OPEN // 2:
            return
        later = END + timedelta(seconds=chance.random() * 600)
        changed = msgspec.structs.replace(live, revision=live.revision + 1, updated=index_time(later))
        self.facts.updated.append(changed.to_dict())
        begun = self.made.entry({**self.made.metadata(user), "title": "New chat"}, later, later, 1)
        self.facts.created.append(begun.to_dict())


def _keep_newest(newest: list[tuple[str, str, Row]], row: Row) -> None:
    heapq.heappush(newest, (row.updated, row.key[2], row))
    if len(newest) > RECENT_ROWS + 1:
        heapq.heappop(newest)


def build(url: str, size: int) -> Facts:
    """Make an archive of `size` chats, through the writer of segments that maintenance uses. The log is left empty."""
    made = _Made(size)
    ranks = sorted(made.numbers)
    chosen = (ranks[0], ranks[min(bisect_left(ranks, 1000), len(ranks) - 1)], ranks[-1])
    tenants: Counter[str] = Counter()
    for rank, number in made.numbers.items():
        tenants[f"tenant-{int((rank * 0.6180339887 % 1) ** 2 * TENANTS):03d}"] += number
    tenant = sorted(tenants)[len(tenants) // 10]
    users = [(user_name(rank), made.numbers[rank]) for rank in chosen]
    facts = Facts(size, users, (tenant, tenants[tenant]), 0, 0, 0, 0, [], [])
    building = _Building(made, facts, [], [], [])
    with Archive.create(url, partition_by=PARTITION_BY) as archive:
        run_sync(_write(archive, building))
        manifest = run_sync(read_manifest(archive._context)).manifest
        facts.stored = sum(one.size for one in manifest.all()) + len(manifest.encode())
    return facts


async def _write(archive: Archive, building: _Building) -> None:
    context = archive._context
    now = await read_manifest(context)
    base = await write_segments(context, _streamed(building.base()), now.date, None)
    mid = await write_segments(context, of_list(building.mid), now.date, None)
    tail = await write_segments(context, of_list(building.tail), now.date, None, tail=True)
    recent = await write_recent(context, [row for _, _, row in building.newest], "", now.date)
    manifest = msgspec.structs.replace(
        now.manifest, generation=1, nonce=context.new_id(), base=base, mid=mid, tail=tail, recent=recent
    )
    if not await swap_manifest(context, now.etag, manifest):
        raise RuntimeError(f"somebody else writes to {archive.url}")


async def _streamed(rows: Iterator[list[Row]]) -> Rows:
    for some in rows:
        yield some


def saved_chats(number: int) -> MemoryStore:
    """An archive in memory to which so many chats have just been saved, one by one: each has its intent."""
    made = _Made(number)
    store = MemoryStore()
    with Archive.create(store, partition_by=PARTITION_BY) as archive:
        for user, chats in made.numbers.items():
            for _ in range(chats):
                identity = f"{made.chance.getrandbits(122):031x}1"
                state = ConversationState.start(identity, system="Be brief.", metadata=made.metadata(user))
                state.created_at = END + timedelta(seconds=made.chance.random() * 3600)
                state.add_message("user", f"What about {state.metadata['title']}?", timestamp=state.created_at)
                state.add_message("assistant", "It depends.", timestamp=state.created_at)
                state.updated_at = state.created_at
                archive.save(state)
    return store


def save_facts(path: Path, facts: Facts) -> None:
    """Write what is known of an archive beside it."""
    path.write_text(json.dumps(asdict(facts)))


def load_facts(path: Path) -> Facts:
    """The other way round."""
    return msgspec.convert(json.loads(path.read_text()), Facts)


def clone(source: str | os.PathLike[str], target: Path, names: Sequence[str]) -> None:
    """The same archive in another folder. Objects are replaced and never changed, so that hard links will do."""
    for name in names:
        for path in [Path(source, name), *Path(source, name).rglob("*")]:
            if path.is_file():
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, copy)
