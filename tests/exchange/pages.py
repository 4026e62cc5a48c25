"""Conversations to be shown as pages: one of each kind that a page has to be good at."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from s3conv import ConversationState

BEGIN = datetime(2026, 3, 1, 23, 58, tzinfo=UTC)

SEA = "Write a haiku about the sea."
WAVES = "Grey waves come ashore,\nand each one forgets the last.\nThe sand keeps no list."
HAPPY = "Blue waves come to play,\neach one laughing at the last.\nThe sand claps along."
GULLS = "Salt wind in my hair,\nthe horizon draws one line\nand signs it with gulls."
CRUST = "Gulls argue all day\nover a single wet crust.\nThe sea does not care."
POST = "One gull, one grey post.\nBoth have stood here since morning.\nOnly one gets fed."
DEEP = "Deep blue, no bottom:\nI drop my question in it\nand wait for the splash."


def at(minutes: float) -> datetime:
    """A time of the conversations here."""
    return BEGIN + timedelta(minutes=minutes)


def tree() -> ConversationState:
    """Four branches: WAVES and then HAPPY; GULLS and then CRUST or POST, where it stands; DEEP."""
    state = ConversationState.start("tree", system="You are a poet.", metadata={"title": "A haiku, four times"})
    asked = state.add_message("user", SEA, timestamp=at(0))
    state.add_message("assistant", WAVES, timestamp=at(1), metadata={"model": "model-a"})
    state.add_message("user", "Make it happier.", timestamp=at(3))
    state.add_message("assistant", HAPPY, timestamp=at(4), metadata={"model": "model-a"})
    state.add_message("assistant", GULLS, timestamp=at(5), metadata={"model": "model-b"}, parent=asked)
    again = state.add_message("user", "I like the gulls. Again?", timestamp=at(6))
    state.add_message("assistant", CRUST, timestamp=at(7), metadata={"model": "model-b"})
    here = state.add_message("assistant", POST, timestamp=at(8), branch_name="funnier", parent=again)
    state.add_message("assistant", DEEP, timestamp=at(9), parent=asked)
    state.current_node_id = here.node_id
    return state


CODE = 'def rows(path):\n    """One at a time."""\n    with open(path) as file:\n        yield from file  # <b>\n'
LISTING = f"""You keep every row in a list. **Iterate** instead:

```python
{CODE}```

1. `newline=""` is what the *csv* module asks for.
2. Use a generator:
   - it is lazy,
   - it composes.

| approach | memory |
|:---|---:|
| a list | 9 GB |
| one at a time | 8 MB |

> Premature optimisation is the root of all evil.

See [the manual](https://docs.python.org/3/ "Python") and ![a chart](https://example.com/chart.png).
"""


def png(width: int = 160, height: int = 90) -> str:
    """A real image, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x46\x82\xb4" * width for _ in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    made = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(made).decode()


def code() -> ConversationState:
    """Code, a table, an image, a file, thoughts, a call of a tool and its result."""
    state = ConversationState.start("code", system="Answer briefly.", metadata={"title": "A large file"})
    state.add_message("user", "This is slow:\n\n```python\nrows = list(file)\n```\n\nHow do I make it <b>stream</b>?")
    state.add_message("assistant", LISTING, metadata={"model": "model-a", "usage": {"tokens": 512}})
    state.add_message(
        "user",
        [
            {"type": "text", "text": "And this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}},
            {"type": "file", "file": {"filename": "report.pdf", "file_data": f"data:application/pdf;base64,{png()}"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}},
        ],
    )
    call = {"id": "call-1", "type": "function", "function": {"name": "search", "arguments": '{"query": "a square"}'}}
    thought = {"type": "thinking", "thinking": "They want to know what it is."}
    state.add_message("assistant", [thought, {"type": "text", "text": "I look."}], tool_calls=[call])
    state.add_message("tool", '[{"title": "Squares"}]', name="search", tool_call_id="call-1")
    state.add_message("assistant", "A square has four equal sides.")
    return state


RECIPE = (
    "שלום! הנה מתכון:\n\n1. ערבבו **500 גרם קמח**.\n2. לושו `10` דקות.\n\nThis one is English.\n\nوهذه فقرة بالعربية."
)


def right_to_left() -> ConversationState:
    """A chat in Hebrew, with a paragraph in English and one in Arabic."""
    state = ConversationState.start("rtl", metadata={"title": "מתכון לחלה"})
    state.add_message("user", "שלום! איך מכינים חלה לשבת? יש לי 500 גרם קמח.")
    state.add_message("assistant", RECIPE)
    return state


HOSTILE = (
    "<script>document.title = 'broken'</script>",
    "</script></style></title></textarea></main><h1>",
    "<img src=x onerror=\"document.title='broken'\">",
    "<!-- ", "-->", "<![CDATA[", "]]>", "<?php", "&lt;b&gt;", "&#60;script&#62;", "&amp;amp;",
    "[a](javascript:alert(1))", "[a](JaVaScRiPt:alert(1))", "[a](data:text/html,<script>alert(1)</script>)",
    "![a](javascript:alert(1))", "<javascript:alert(1)>", "[a](vbscript:x)", "[a](//example.com)",
    "[a](\x01javascript:x)",
    "[a]: javascript:alert(1)\n\n[a]", '[a](https://example.com "\' onmouseover=alert(1) x=\'")',
    'https://example.com/"onmouseover="alert(1)', "https://example.com/<b>", "`<b>`", "```\n</code></pre><b>\n",
    "~~~\" onclick=x\n",
    "\u2028\u2029", "\u202e", "\x00", "\x0b\x0c\x1b[31m\x7f\x80\x9f", "\r", "\r\n", "\ufeff", "\ufffe\uffff", "\u00ad",
    "'\"`=<>&", "{{7*7}} ${7*7}", "body { display: none }", "</ style>", "<svg/onload=alert(1)>",
    "<a href=//x>", "\\<b>",
)  # fmt: skip
"""Texts that have broken pages."""


def session(path: Path) -> ConversationState:
    """The long session of a coding agent, from its own format."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    head = rows[0]
    time = datetime.fromisoformat(head["timestamp"])
    state = ConversationState(head["id"], metadata={"title": "A refactoring"}, created_at=time, updated_at=time)
    for row in rows:
        if row["type"] == "message":
            _add(state, row["message"], datetime.fromisoformat(row["timestamp"]))
    return state


def _add(state: ConversationState, said: dict[str, Any], time: datetime) -> None:
    role = {"toolResult": "tool", "bashExecution": "tool"}.get(said["role"], said["role"])
    content = said.get("content", said.get("output"))
    metadata: dict[str, Any] = {name: said[name] for name in ("model", "usage") if name in said}
    called = said.get("toolCallId")
    state.add_message(role, content, name=said.get("toolName"), tool_call_id=called, metadata=metadata, timestamp=time)
