"""Parquet: one row per conversation, or one per message, in typed columns. Needs the extra `parquet` (pyarrow).

Law: times are instants in UTC, texts are texts, and what has no fixed shape (metadata, parts, tool calls) is JSON in a
text. Rows are gathered column by column and written as a row group of about `GROUP` bytes of text, so that memory does
not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Protocol

import msgspec

from s3conv.errors import CorruptError, StorageError
from s3conv.exchange.chats import Chat
from s3conv.format.document import Document
from s3conv.model.message import as_utc

GROUP = 4 * 1024 * 1024
"""Bytes of text after which a row group ends."""

BATCH = 256 * 1024
"""Bytes of text that are held as values of Python, which take several times as much, before they become columns."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROW = 64
"""What a row counts for besides its text, in bytes."""

_json = msgspec.json.Encoder()

Columns = dict[str, list[Any]]

CONVERSATION = {
    "conversation_id": "text",
    "created_at": "time",
    "updated_at": "time",
    "schema_version": "text",
    "message_count": "number",
    "branch_count": "number",
    "current": "number",
    "metadata": "text",
}
"""Columns of a conversation; then `messages`, a list. `current` is a position in it."""

MESSAGE = {
    "parent": "number",
    "role": "text",
    "content": "text",
    "parts": "text",
    "name": "text",
    "tool_calls": "text",
    "function_call": "text",
    "tool_call_id": "text",
    "timestamp": "time",
    "prompt_name": "text",
    "branch_name": "text",
    "metadata": "text",
}
"""Fields of a message. `content` where it is a text, `parts` where it is a list; `parent` is a position."""

PLACE = {"conversation_id": "text", "position": "number", "is_current": "truth"}
"""Columns of a message's row, before its fields. `is_current`: it leads to the current message."""


class Chats(Protocol):
    """What a document becomes before it is written; see `writing.Reader`."""

    def chats(self, document: Document) -> list[Chat]: ...


class ParquetWriter:
    """Writes one file. See `writing.Writer`."""

    def __init__(self, file: IO[bytes], reader: Chats, *, by_message: bool) -> None:
        """Write to `file`.

        Raises:
            StorageError: pyarrow is not installed.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise StorageError(
                "Parquet needs pyarrow, which is not installed: from a checkout, pip install '.[parquet]'"
            ) from error
        self._arrow: Any = pyarrow
        # The default pool keeps what it was given: a long export would take half as much memory again.
        self._pool = pyarrow.system_memory_pool()
        self._file = file
        self._reader = reader
        self._add = self._add_messages if by_message else self._add_conversation
        self._columns = self._of_messages if by_message else self._of_conversations
        self._rows: Columns = {name: [] for name in ({**PLACE, **MESSAGE} if by_message else CONVERSATION)}
        self._messages: Columns = self._rows if by_message else {name: [] for name in MESSAGE}
        self._ends = [0]
        self._held = 0
        self._batches: list[Any] = []
        self._batched = 0
        types = {
            "text": pyarrow.string(),
            "number": pyarrow.int32(),
            "truth": pyarrow.bool_(),
            "time": pyarrow.timestamp("us", tz="UTC"),
        }
        self._types = {name: types[kind] for name, kind in {**PLACE, **MESSAGE, **CONVERSATION}.items()}
        fields = [(name, self._types[name]) for name in self._rows]
        if not by_message:
            message = pyarrow.struct([(name, self._types[name]) for name in MESSAGE])
            fields.append(("messages", pyarrow.list_(message)))
        self._schema = pyarrow.schema(fields)
        self._writer = pyarrow.parquet.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=["role", "schema_version", "conversation_id"],
            memory_pool=self._pool,
        )
        self.size = self.beside = 0

    def add(self, document: Document) -> int:
        """See `Writer.add`."""
        # All times first: of a conversation that has none where one should be, no row is begun.
        chats = [(chat, _Times(chat)) for chat in self._reader.chats(document)]
        rows = 0
        for chat, times in chats:
            rows += self._add(chat, times)
            if self._held >= BATCH:
                self._end_batch()
            if self._batched >= GROUP:
                self._write_group()
        return rows

    def finish(self) -> None:
        """See `Writer.finish`."""
        self._end_batch()
        self._write_group()
        self._writer.close()
        self.size = self._file.tell()

    def discard(self) -> None:
        """See `Writer.discard`."""
        with suppress(OSError, ValueError):  # pyarrow writes the end of the file, which may be full, or closed
            self._writer.close()

    def _add_conversation(self, chat: Chat, times: _Times) -> int:
        self._append(
            self._rows,
            CONVERSATION,
            (
                chat.conversation_id,
                times.created,
                times.updated,
                chat.fields["schema_version"],
                len(chat.nodes),
                len(chat.leaves()),
                chat.current,
                _json.encode(chat.metadata).decode(),
            ),
        )
        for node, time in zip(chat.nodes, times.nodes, strict=True):
            self._add_message(node, time)
        self._ends.append(self._ends[-1] + len(chat.nodes))
        return 1

    def _add_messages(self, chat: Chat, times: _Times) -> int:
        leading = set(chat.path(chat.current))
        for position, (node, time) in enumerate(zip(chat.nodes, times.nodes, strict=True)):
            self._append(self._rows, PLACE, (chat.conversation_id, position, position in leading))
            self._add_message(node, time)
        return len(chat.nodes)

    def _add_message(self, node: dict[str, Any], time: int) -> None:
        message = node["message"]
        content = message.get("content")
        parts = _json_or_none(content) if isinstance(content, list) else None
        self._append(
            self._messages,
            MESSAGE,
            (
                node.get("parent"),
                message["role"],
                None if parts is not None else content,
                parts,
                message.get("name"),
                _json_or_none(message.get("tool_calls")),
                _json_or_none(message.get("function_call")),
                message.get("tool_call_id"),
                time,
                _text(node.get("prompt_name")),
                _text(node.get("branch_name")),
                _json_or_none(node.get("metadata") or None),
            ),
        )

    def _append(self, columns: Columns, names: Iterable[str], values: tuple[Any, ...]) -> None:
        """Add a value to each of these columns, and count all that is held of them."""
        self._held += _ROW
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
            if isinstance(value, str):
                self._held += len(value)

    def _end_batch(self) -> None:
        if self._held:
            self._batches.append(self._columns())
            self._batched += self._held
        for column in (*self._rows.values(), *self._messages.values()):
            column.clear()
        self._ends = [0]
        self._held = 0

    def _write_group(self) -> None:
        if self._batches:
            self._writer.write_table(self._arrow.Table.from_batches(self._batches))
        self._batches.clear()
        self._batched = 0
        self.size = self._file.tell()

    def _arrays(self, columns: Columns) -> list[Any]:
        return [
            self._arrow.array(values, self._types[name], memory_pool=self._pool) for name, values in columns.items()
        ]

    def _of_messages(self) -> Any:
        return self._arrow.RecordBatch.from_arrays(self._arrays(self._rows), schema=self._schema)

    def _of_conversations(self) -> Any:
        arrow = self._arrow
        message = self._schema.field("messages").type.value_type
        messages = arrow.StructArray.from_arrays(self._arrays(self._messages), fields=list(message))
        lists = arrow.ListArray.from_arrays(arrow.array(self._ends, arrow.int32()), messages)
        return arrow.RecordBatch.from_arrays([*self._arrays(self._rows), lists], schema=self._schema)


class _Times:
    """The times of a conversation and of its messages.

    Raises:
        CorruptError: one of them is none.
    """

    def __init__(self, chat: Chat) -> None:
        self.created = _micros(chat, chat.fields.get("created_at"), "created_at")
        self.updated = _micros(chat, chat.fields.get("updated_at"), "updated_at")
        self.nodes = [
            _micros(chat, node.get("timestamp"), f"nodes[{position}].timestamp")
            for position, node in enumerate(chat.nodes)
        ]


def _micros(chat: Chat, text: Any, where: str) -> int:
    """An instant in microseconds since 1970."""
    try:
        return (as_utc(datetime.fromisoformat(text)) - _EPOCH) // _MICROSECOND
    except (TypeError, ValueError):
        raise CorruptError(f"conversation {chat.conversation_id!r}: {where}: expected a time") from None


def _json_or_none(value: Any) -> str | None:
    return None if value is None else _json.encode(value).decode()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
