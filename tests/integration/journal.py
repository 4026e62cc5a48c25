"""What the actors of a test want and are told, written down so that a SIGKILL takes at most the last outcome with it.

Law: one file for each actor, one line for each event, written before the call and after it. Times are of the monotonic
clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

ACKED, CONFLICT, UNKNOWN, REFUSED, NONE = "acked", "conflict", "unknown", "refused", "none"


@dataclass
class Call:
    """One save or delete: what its caller wants, and what it was told.

    `message` is new with this call, under the message `parent`; `carries` are those of earlier calls on the same state
    that were not acknowledged. `moves`: whether metadata may change. `tree`: what an overwrite stores, whole.
    """

    actor: str
    number: int
    conversation_id: str
    how: str
    message: str = ""
    parent: str = ""
    carries: list[str] = field(default_factory=list)
    moves: bool = False
    tree: dict[str, str] = field(default_factory=dict)
    begin: float = 0.0
    end: float = math.inf
    outcome: str = NONE
    """acked, conflict, unknown, refused (definitely not saved), or none: its process was killed."""
    revision: int = 0
    entry: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def texts(self) -> list[str]:
        return [self.message, *self.carries] if self.message else []

    @property
    def is_open(self) -> bool:
        """Whether it may have been applied, and may not."""
        return self.outcome in (UNKNOWN, NONE)


@dataclass
class Listed:
    """A list: its filter, and the entries that it gave."""

    actor: str
    how: str
    where: dict[str, Any]
    order: str
    entries: list[dict[str, Any]]
    begin: float
    end: float


@dataclass
class Loaded:
    """A conversation as it was loaded: each message's parent by their texts; None if it was not there."""

    actor: str
    conversation_id: str
    tree: dict[str, str] | None
    begin: float
    end: float


@dataclass
class Done:
    """What a maintainer did, or what it met."""

    actor: str
    what: str
    counts: dict[str, int]


class Journal:
    """The journal of one actor. `beat`: a file descriptor that gets one byte for each line."""

    def __init__(self, folder: Path, actor: str, beat: int | None = None) -> None:
        self.actor = actor
        self._file = os.open(folder / f"{actor}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._beat = beat
        self._number = 0

    def begin(self, conversation_id: str, how: str, **wanted: Any) -> Call:
        """Note a call that is about to be made."""
        self._number += 1
        call = Call(self.actor, self._number, conversation_id, how, begin=time.monotonic(), **wanted)
        self.write("begin", call)
        return call

    def end(self, call: Call, outcome: str, **told: Any) -> None:
        """Note what its caller was told."""
        call.end, call.outcome = time.monotonic(), outcome
        for name, value in told.items():
            setattr(call, name, value)
        self.write("end", call)

    def write(self, event: str, record: Call | Listed | Loaded | Done) -> None:
        """Append a line with one write."""
        os.write(self._file, json.dumps([event, asdict(record)]).encode() + b"\n")
        if self._beat is not None:
            os.write(self._beat, b".")

    def close(self) -> None:
        os.close(self._file)


@dataclass
class Journals:
    """All that the actors of a test wrote down."""

    calls: list[Call] = field(default_factory=list)
    lists: list[Listed] = field(default_factory=list)
    loads: list[Loaded] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)

    def acked(self) -> int:
        return sum(call.outcome == ACKED for call in self.calls)


def read_journals(folder: Path, killed: dict[str, float] | None = None) -> Journals:
    """Read every journal of a folder.

    Args:
        folder: where they lie.
        killed: when actors were seen to be dead that had been killed; what they had begun ended by then.
    """
    journals = Journals()
    for path in sorted(folder.glob("*.jsonl")):
        calls: dict[int, Call] = {}
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the kill came in the middle of a write
            event, record = json.loads(line)
            match event:
                case "begin" | "end":
                    call = Call(**{one.name: record[one.name] for one in fields(Call)})
                    calls[call.number] = call
                case "list":
                    journals.lists.append(Listed(**record))
                case "load":
                    journals.loads.append(Loaded(**record))
                case "done":
                    journals.done.append(Done(**record))
                case _:
                    raise AssertionError(f"{path}: a line of kind {event!r}")
        for call in calls.values():
            if call.outcome == NONE and killed is not None:
                call.end = killed.get(call.actor, math.inf)
        journals.calls += calls.values()
    return journals
