"""What the commands print: text made safe for a terminal, tables, sizes and times.

Law: whatever comes out of a conversation, an id or a file's name passes through `printable` before it reaches a
terminal, and never through rich's markup.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from s3conv.core.stats import Stats
from s3conv.format.entry import Entry
from s3conv.model.message import as_utc

# Controls of C0 and C1, and what changes the direction or the lines of text: they could hide or forge what is shown.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WIDE = 10_000

_GAP = 3
"""Columns of the terminal between two columns of a table."""
_TITLE = 20, 60
"""The least and the most that are shown of a title which is as long."""
_LEAST_WANTED = ("size", "branches", "messages", "updated (UTC)", "title")
"""Columns of a list in the order in which they are left out."""


def printable(text: str, lines: bool = False) -> str:
    """The text with everything that a terminal would act on spelled out; newlines and tabs too, unless `lines`."""
    if lines:
        text = text.replace("\r\n", "\n")
    safe = _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
    return safe.expandtabs(4) if lines else safe.replace("\n", "\\n").replace("\t", "\\t")


def complain(message: str) -> None:
    """One message on stderr, marked as ours."""
    print(f"s3conv: {printable(message)}", file=sys.stderr)


def note(message: str) -> None:
    """A line on stderr that is neither a result nor a problem."""
    print(printable(message), file=sys.stderr)


def write_bytes(data: bytes) -> None:
    """Write to stdout as it is, whatever its encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def console() -> Console:
    """Where tables and trees go. In a pipe nothing is cut to a width that nobody has."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def short_time(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return as_utc(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def short_size(size: int) -> str:
    """A number of bytes, to three digits."""
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def crop(text: str, width: int) -> str:
    """The text, or its beginning and "…"."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def entries_table(entries: Sequence[Entry], width: int) -> Table:
    """A list of conversations, for people, on a terminal that is `width` wide.

    Ids stay whole, so that they can be copied. Where there is no room for all, titles are cropped, then columns left
    out; an id is broken into lines only where it is wider than the terminal.
    """
    columns = {
        "conversation": [printable(entry.conversation_id) for entry in entries],
        "updated (UTC)": [short_time(entry.updated_at) for entry in entries],
        "messages": [f"{entry.message_count:,}" for entry in entries],
        "branches": [f"{entry.branch_count:,}" for entry in entries],
        "size": [short_size(entry.size) for entry in entries],
        "title": [crop(title_of(entry.metadata), _TITLE[1]) for entry in entries],
    }
    widths = {name: max(map(cell_len, (name, *texts))) for name, texts in columns.items()}
    widest_title = widths["title"]
    widths["title"] = min(widest_title, _TITLE[0])
    for name in _LEAST_WANTED:
        left = width - sum(widths.values()) - _GAP * (len(widths) - 1)
        if left >= 0:
            widths["title"] = min(widest_title, _TITLE[1], widths["title"] + left)
            break
        del widths[name]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, cells in widths.items():
        justify: JustifyMethod = "right" if name in ("messages", "branches", "size") else "left"
        overflow: OverflowMethod = "fold" if name == "conversation" else "ellipsis"
        table.add_column(name, width=min(cells, width), justify=justify, overflow=overflow, no_wrap=overflow != "fold")
    for row in zip(*(columns[name] for name in widths), strict=True):
        table.add_row(*map(Text, row))
    return table


def stats_table(stats: Stats) -> Table:
    """What an archive holds, for people."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    table.add_row("conversations", f"{stats.conversations:,}")
    table.add_row("messages", f"{stats.messages:,}")
    table.add_row("documents", short_size(stats.size))
    table.add_row("partitions", f"{stats.partitions:,}")
    for name, run in stats.runs.items():
        plural = "s" * (run.segments != 1)
        table.add_row(name, f"{run.rows:,} rows in {run.segments:,} segment{plural}, {short_size(run.size)}")
    age = "" if stats.oldest_intent_age is None else f", the oldest {stats.oldest_intent_age:,.0f} s old"
    table.add_row("open intents", f"{stats.open_intents:,}{age}")
    return table


def title_of(metadata: dict[str, Any]) -> str:
    """The title of a conversation, on one line; "" if it has none."""
    title = metadata.get("title")
    return printable(" ".join(title.split())) if isinstance(title, str) else ""
