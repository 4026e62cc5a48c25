"""Files for people: a page or a Markdown file per conversation, and one file beside them that lists all.

Law: the list grows by a row with each conversation, and memory does not. A page is written again if its row was lost in
an interruption, so that each row has its page and each page its row. Needs the extra `cli`, for markdown-it-py.
"""

from __future__ import annotations

from typing import IO, Literal, Protocol

from s3conv.errors import CorruptError, InvalidInputError, StorageError
from s3conv.exchange.chats import Chat
from s3conv.exchange.outputs import Output
from s3conv.format.codec import to_json
from s3conv.format.document import Document
from s3conv.format.entry import index_time
from s3conv.model.message import utcnow
from s3conv.model.state import ConversationState

Kind = Literal["html", "markdown"]

INDEX: dict[Kind, str] = {"html": "index.html", "markdown": "index.jsonl"}
"""The name of the file that lists all: a page with search, or JSON lines."""


class Chats(Protocol):
    """What a document becomes before it is written; see `writing.Reader`."""

    def chats(self, document: Document) -> list[Chat]: ...


class PageWriter:
    """Writes the files of conversations, and the file that lists them. See `writing.Writer`."""

    def __init__(self, file: IO[bytes], output: Output, reader: Chats, kind: Kind, rows: int, size: int) -> None:
        """Write the list to `file`, on from where it stands: after `rows` rows in `size` bytes.

        Raises:
            StorageError: markdown-it-py is not installed.
        """
        try:
            from s3conv.exchange import html, html_index, markdown
        except ImportError as error:
            raise StorageError(
                f"pages and Markdown files need {error.name}, which is missing: from a checkout, pip install '.[cli]'"
            ) from error
        self._html, self._index, self._markdown = html, html_index, markdown
        self._file = file
        self._output = output
        self._reader = reader
        self._kind = kind
        self._rows = rows
        self.size = size
        self.beside = 0
        if kind == "html" and not size:
            self._write(html_index.index_begin())

    def add(self, document: Document) -> int:
        """See `Writer.add`."""
        chats = self._reader.chats(document)
        try:
            states = [chat.state() for chat in chats]
        except InvalidInputError as error:
            raise CorruptError(f"{document.what} is not a conversation: {error}") from None
        for number, state in enumerate(states, 1):
            self._add(state, document.conversation_id, number if len(states) > 1 else None)
        return len(states)

    def _add(self, state: ConversationState, conversation_id: str, branch: int | None) -> None:
        from s3conv.exchange.naming import file_name, link_to

        if self._kind == "html":
            name = file_name(conversation_id, ".html", branch)
            text = self._html.conversation_page(state, back=INDEX["html"])
            row = self._index.row_html(self._index.index_row(state, link_to(name)))
        else:
            name = file_name(conversation_id, ".md", branch)
            text = self._markdown.conversation_markdown(state)
            listed = {
                "file": name,
                "conversation_id": state.conversation_id,
                "updated_at": index_time(state.updated_at),
            }
            row = to_json(listed, "a row of the list").decode() + "\n"
        page = text.encode()
        self._output.put(name, page, durable=False)
        self.beside += len(page)
        self._rows += 1
        self._write(row)

    def _write(self, text: str) -> None:
        body = text.encode()
        self._file.write(body)
        self.size += len(body)

    def finish(self) -> None:
        """See `Writer.finish`."""
        if self._kind == "html":
            self._write(self._index.index_end(self._rows, utcnow()))

    def discard(self) -> None:
        """See `Writer.discard`."""
