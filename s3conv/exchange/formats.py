"""The formats that are read: the table in which to look, and to add one.

Law: a format is told by content alone. The first row of the table that knows a value reads it, so that what is more
particular stands above what is less. A value is a conversation by itself, or a row of a file that holds one or several
conversations in many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3conv.exchange import chatgpt, claude, claude_code, datasets, librechat, oasst, openai, pi, sharegpt
from s3conv.exchange.found import Joined, Row
from s3conv.format.document import state_from_stored
from s3conv.model.state import ConversationState


@dataclass(frozen=True, slots=True)
class Format:
    """A format of which each JSON value is a conversation.

    `keyed`: its exports may also be one object that has the conversations' ids for keys.
    """

    name: str
    knows: Callable[[Any], bool]
    read: Callable[[Any, str | None], ConversationState]
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A format of which a conversation is many rows of a file, held until the file has been read.

    `join` gives each conversation with the position of its first row, or the reason why there is none. `follows`: once
    a row of it was there, rows that no format knows belong to it, too. `whole`: the rows have no names, so that each
    answers the one before, and a file with something else among them is no conversation.
    """

    name: str
    knows: Callable[[Any], bool]
    join: Callable[[Sequence[Row]], Joined]
    follows: bool = False
    whole: bool = False


OWN = "s3conv"

FORMATS: tuple[Format, ...] = (
    Format(
        OWN, lambda value: _has(value, "nodes") and "edges" not in value, lambda value, key: state_from_stored(value)
    ),
    Format(
        "dataknobs",
        lambda value: _has(value, "nodes") and "edges" in value,
        lambda value, key: ConversationState.from_dict(value),
    ),
    Format("chatgpt", lambda value: _has(value, "mapping"), chatgpt.read, keyed=True),
    Format(claude.NAME, claude.is_conversation, claude.read, keyed=True),
    Format(
        "oasst",
        lambda value: _has(value, "prompt") and ("message_tree_id" in value or "tree_state" in value),
        lambda value, key: oasst.read_tree(value),
    ),
    Format(librechat.NAME, librechat.is_conversation, librechat.read),
    Format(openai.NAME, openai.is_conversation, openai.read),
    Format(openai.TAU_BENCH, openai.is_run, openai.read_run),
    Format(sharegpt.NAME, sharegpt.is_conversation, sharegpt.read),
    Format(datasets.ALPACA, datasets.is_alpaca, datasets.read_alpaca),
    Format(datasets.TURNS, datasets.is_turns, datasets.read_turns),
    Format(datasets.UTTERANCES, datasets.is_utterances, datasets.read_utterances),
)

ROW_FORMATS: tuple[RowFormat, ...] = (
    RowFormat("oasst", oasst.is_message, oasst.read_flat),
    RowFormat(claude_code.NAME, claude_code.is_line, claude_code.read_lines, follows=True),
    RowFormat(pi.NAME, pi.is_entry, pi.read_entries, follows=True),
    RowFormat(librechat.NAME, librechat.is_message, librechat.read_messages),
    RowFormat(openai.NAME, openai.is_message, openai.read_messages, whole=True),
    RowFormat(sharegpt.NAME, sharegpt.is_turn, sharegpt.read_turns, whole=True),
)

READERS: tuple[Format | RowFormat, ...] = (*FORMATS, *ROW_FORMATS)
"""All of them, in the order in which they are asked."""

NAMES: tuple[str, ...] = tuple(dict.fromkeys(one.name for one in READERS))
"""Every format, for `--format`."""


def _has(value: Any, name: str) -> bool:
    return isinstance(value, Mapping) and name in value
