"""What one turn of a chat costs in a serverless function: requests, series, bytes and milliseconds, cold and warm.

A turn is a question of 200 characters and an answer of 1,200, MADE UP of words in no order. All systems talk to one
server on loopback in one run (`slow_s3.py`), which adds 20 ms to each request and counts them, so that nobody's own
figures are believed. *Series* are requests that wait for one another: the longest chain of which each was received
after the one before was answered. *Bytes* are those of the bodies.

*Cold* is the tenth turn of a conversation, in a fresh process with a fresh client (imports are not in it, making the
client is); *warm* is the next one, by the same process with the same objects. Rounds take turns. Milliseconds are the
shortest of the rounds, other figures the median; the requests of one round are those of the next. Dollars are for the
requests of a million such turns, at the prices of S3 Standard in us-east-1.

Without strands-agents it measures s3conv alone; `make bench-peers` has both. Exits 1 if s3conv takes more than 4
requests in 3 series cold (its descriptor included), 2 warm, or 1 warm in an activity window.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import boto3

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chats import prose
from benchmarks.measuring import child, in_fresh_process, print_machine, print_table
from benchmarks.slow_s3 import Request, SlowS3, slow_s3
from benchmarks.turn_systems import OURS, peers
from s3conv import Archive, ConversationState

DELAY = 0.02
QUESTION, ANSWER = 200, 1200
COLD_TURN = 10
MESSAGES = 50
USERS, CHATS_EACH = 10, 20
MAKE_CLIENT = (
    "import boto3, botocore.config, time; t = time.perf_counter(); boto3.Session().client('s3'); "
    "print((time.perf_counter() - t) * 1000)"
)
SCRIPT = str(Path(__file__).with_name("turn_systems.py"))

PRICES = {"PUT": 5.0, "LIST": 5.0, "GET": 0.4, "HEAD": 0.4, "DELETE": 0.0, "POST": 0.0}
"""US dollars for a million requests: S3 Standard, us-east-1 (https://aws.amazon.com/s3/pricing/, looked up in 2026).

A POST is a delete of many.
"""


class Cost(NamedTuple):
    """What was measured of one thing."""

    requests: float
    series: float
    up: float
    down: float
    milliseconds: float
    dollars: float
    """For the requests of a million of them."""


def cost_of(requests: Sequence[Request], milliseconds: float) -> Cost:
    """What requests come to."""
    up, down = sum(one.up for one in requests), sum(one.down for one in requests)
    dollars = sum(PRICES[one.method] for one in requests)
    return Cost(len(requests), series_of(requests), up, down, milliseconds, dollars)


@dataclass
class Measured:
    """What was measured of one system, a value for each round."""

    cold: list[Cost] = field(default_factory=list)
    warm: list[Cost] = field(default_factory=list)
    ten: list[Cost] = field(default_factory=list)
    load: list[Cost] = field(default_factory=list)
    objects: int = 0
    stored: int = 0
    largest: int = 0
    """Bytes of the largest object."""
    kept: int = 0
    """Of six messages, two of them before two writers come at once."""


def environment(url: str) -> dict[str, str]:
    """What a function finds in its environment: the same for all systems."""
    return {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "up",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }


def series_of(requests: Sequence[Request]) -> int:
    """The longest chain of requests of which each began after the one before was answered."""
    length, free = 0, float("-inf")
    for request in sorted(requests, key=lambda one: one.answered):
        if request.began >= free:
            length, free = length + 1, request.answered
    return length


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of the rounds; of series and milliseconds the least, which a busy machine adds to."""
    least = {name: min(getattr(cost, name) for cost in costs) for name in ("series", "milliseconds")}
    return Cost(*map(median, zip(*costs, strict=True)))._replace(**least)


class Asked:
    """A process with one of the systems in it."""

    def __init__(self, server: SlowS3, ask: Callable[[str], str]) -> None:
        self._server, self._ask = server, ask

    def do(self, *tasks: Sequence[str]) -> float:
        """Do some tasks; gives the milliseconds that they took."""
        return sum(float(json.loads(self._ask(json.dumps(task)))[0]) for task in tasks)

    def measure(self, *tasks: Sequence[str]) -> Cost:
        """What some tasks cost together."""
        self._server.requests()
        milliseconds = self.do(*tasks)
        return cost_of(self._server.requests(), milliseconds)

    def texts(self) -> list[str]:
        """All messages that it finds."""
        found: list[str] = json.loads(self._ask(json.dumps(["texts"])))[1]
        return found


@contextmanager
def asked(server: SlowS3, name: str, bucket: str) -> Iterator[Asked]:
    """A fresh process."""
    with child(SCRIPT, name, bucket) as process:
        yield Asked(server, process.ask)


def turns(count: int) -> list[tuple[str, str]]:
    """So many questions and answers, the same every time."""
    draw = random.Random(6)
    return [(prose(draw, QUESTION), prose(draw, ANSWER)) for _ in range(count)]


def prepare(name: str, bucket: str) -> None:
    """What is done once and not measured: making the archive."""
    if name in OURS:
        Archive.create(f"s3://{bucket}/chats", partition_by="metadata.user_id").close()


def measure_chat(server: SlowS3, name: str, bucket: str, measured: Measured) -> None:
    """One conversation, from its first turn to its fiftieth message, and its load."""
    prepare(name, bucket)
    said = turns(MESSAGES // 2)
    with asked(server, name, bucket) as process:
        first = [process.measure(["anew"], ["say", *turn]) for turn in said[: COLD_TURN - 1]]
    with asked(server, name, bucket) as process:
        cold = process.measure(["open"], ["say", *said[COLD_TURN - 1]])
        measured.cold.append(cold)
        measured.ten.append(Cost(*map(sum, zip(*first, cold, strict=True))))
        measured.warm.append(process.measure(["say", *said[COLD_TURN]]))
        process.do(*(["say", *turn] for turn in said[COLD_TURN + 1 :]))
    with asked(server, name, bucket) as process:
        measured.load.append(process.measure(["open"]))
        assert process.texts() == [text for turn in said for text in turn], f"{name} gives other messages than it got"
    sizes = [one["Size"] for one in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    measured.objects, measured.stored, measured.largest = len(sizes), sum(sizes), max(sizes)


def count_kept(server: SlowS3, name: str, bucket: str) -> int:
    """How many of six messages there are after two writers, who both found the first two, added two each."""
    prepare(name, bucket)
    before, mine, theirs = turns(3)
    with asked(server, name, bucket) as process:
        process.do(["open"], ["say", *before])
    with asked(server, name, bucket) as one, asked(server, name, bucket) as other:
        one.do(["open"])
        other.do(["open"])
        one.do(["say", *mine])
        other.do(["say", *theirs])
    with asked(server, name, bucket) as process:
        process.do(["open"])
        return len({*before, *mine, *theirs} & {*process.texts()})


def measure_index(server: SlowS3) -> list[tuple[str, Cost]]:
    """The newest conversations of one user of many, and the maintenance that keeps such a list fast."""
    url = "s3://lists/chats"

    def save(number: int) -> None:
        state = ConversationState.start(f"chat-{number}", metadata={"user_id": f"user-{number % USERS}"})
        state.add_message("user", "Hello")
        archive.save(state)

    def show(archive: Archive) -> None:
        assert len(archive.list(where={"metadata.user_id": "user-3"}, limit=CHATS_EACH).items) == CHATS_EACH

    def measure(name: str, do: Callable[[], object]) -> None:
        server.requests()
        began = time.perf_counter()
        do()
        milliseconds = (time.perf_counter() - began) * 1000
        measured.append((name, cost_of(server.requests(), milliseconds)))

    measured: list[tuple[str, Cost]] = []
    with Archive.create(url, partition_by="metadata.user_id") as archive, ThreadPoolExecutor(16) as pool:
        list(pool.map(save, range(USERS * CHATS_EACH)))
        with Archive.open(url, auto_maintain=False) as reader:
            measure("list of one user, cold, nothing folded", lambda: show(reader))
            measure("list again", lambda: show(reader))
        measure(f"maintain: fold {USERS * CHATS_EACH} intents", archive.maintain)
        measure("maintain again, nothing to do", archive.maintain)
        with Archive.open(url, auto_maintain=False) as reader:
            measure("list of one user, cold, all folded", lambda: show(reader))
            measure("list again", lambda: show(reader))
    return measured


def print_turns(measured: Mapping[str, Measured]) -> None:
    """The table of one turn."""
    print("### One turn\n")
    figures = ("requests", "series", "bytes up", "bytes down", "ms", "$")
    rows = [(name, *_shown(middle(one.cold)), *_shown(middle(one.warm))) for name, one in measured.items()]
    print_table(("", "cold: requests", *figures[1:], "warm: requests", *figures[1:]), rows)
    clients = [in_fresh_process("-c", MAKE_CLIENT)[0] for _ in range(len(next(iter(measured.values())).cold))]
    print(f"\nOf the cold milliseconds {min(clients):,.0f} are the making of a boto3 client.")


def print_chats(measured: Mapping[str, Measured]) -> None:
    """The table of a conversation."""
    print(f"\n### A conversation of {MESSAGES} messages\n")
    rows = []
    for name, one in measured.items():
        ten, load = middle(one.ten), middle(one.load)
        figures = (ten.requests, load.requests, load.series, load.milliseconds, one.objects, one.stored, one.largest)
        rows.append((name, *map(_short, figures), f"{one.kept} of 6"))
    head = ("ten cold turns: requests", "load: requests", "series", "ms", "objects", "bytes", "of the largest")
    print_table(("", *head, "kept of two writers"), rows)


def print_index(measured: Sequence[tuple[str, Cost]]) -> None:
    """The table of lists and maintenance."""
    print(f"\n### {USERS * CHATS_EACH} conversations of {USERS} users (s3conv; the others cannot list one user's)\n")
    rows = [(name, *_shown(cost)) for name, cost in measured]
    print_table(("", "requests", "series", "bytes up", "bytes down", "ms", "$"), rows)


def _shown(cost: Cost) -> tuple[str, ...]:
    return (*map(_short, cost[:-1]), f"{cost.dollars:,.2f}")


def _short(figure: float) -> str:
    return f"{figure:,.0f}"


def missed(measured: Mapping[str, Measured]) -> bool:
    """Print what s3conv promises beside what was measured, and say whether anything is missed."""
    edits, window = measured["s3conv, edit"], measured["s3conv, edit in an activity window"]
    targets = (
        ("cold, descriptor included: requests", 4, max(cost.requests for cost in edits.cold)),
        ("cold: series", 3, middle(edits.cold).series),
        ("warm: requests", 2, max(cost.requests for cost in edits.warm)),
        ("warm, in an activity window: requests", 1, max(cost.requests for cost in window.warm)),
        ("messages lost by two writers", 0, 6 - min(measured[name].kept for name in OURS)),
    )
    print("\n### Targets of s3conv\n")
    rows = [(name, most, _short(found), "ok" if found <= most else "MISSED") for name, most, found in targets]
    print_table(("", "at most", "measured", ""), rows)
    return any(found > most for _, most, found in targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print_machine()
    systems = {**OURS, **peers()}
    packages = ("boto3", "strands-agents") if peers() else ("boto3",)
    print(", ".join(f"{name} {version(name)}" for name in packages), f"{rounds} rounds\n", sep="; ")
    measured = {name: Measured() for name in systems}
    with tempfile.TemporaryDirectory() as empty, slow_s3("none", Path(empty), DELAY) as server:
        os.environ |= environment(server.url)
        for number in range(rounds):
            for place, name in enumerate(systems):
                measure_chat(server, name, f"chat-{number}-{place}", measured[name])
        for place, name in enumerate(systems):
            measured[name].kept = count_kept(server, name, f"writers-{place}")
        index = measure_index(server)
        print_turns(measured)
    print_chats(measured)
    print_index(index)
    if not peers():
        print("\nstrands-agents is not installed here: `make bench-peers` measures it beside s3conv.")
    sys.exit(missed(measured))


if __name__ == "__main__":
    main()
