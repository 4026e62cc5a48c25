"""From a stream of bytes to the JSON texts in it: lines, the items of a list, or the one value that it is.

The list may be the whole, or in an object around it (`{"exported": …, "conversations": [{…}, …]}`).

Law: a text that is broken is reported by itself, and the next one is still found. For that, the items of a list are
told apart by their brackets and strings alone, before any is decoded. One text of more than `MAX_BYTES` is never held
in memory; a stream of any length is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from s3conv.exchange.sources import READ_ERRORS, Stream
from s3conv.format.codec import MAX_BYTES

_CHUNK = 1 << 20
_PEEK = 10
"""How many lines may be broken at the start of JSON lines that are to be recognized as such."""

_LISTS = re.compile(rb"conversations|chats|data|items")
"""What an object may call its list of conversations."""

_CONVERSATION = re.compile(
    rb"mapping|chat_messages|messages|messagesTree|conversations|nodes|traj|prompt|instruction|history|utterances"
)
"""What an item has among its keys, if the list is one of conversations and not of the messages of one."""

_KEY = re.compile(rb'\s*,?\s*"((?:[^"\\]|\\.)*+)"\s*+:\s*+')
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"{}\[\],]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
"""Whole strings and what is between: up to the next bracket (or comma between items), or a string that is cut off."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One JSON text and its position; or, with a `reason`, why there is none.

    `beside`: an object of what stands beside the list that the other texts are items of.
    """

    position: str
    data: bytes
    reason: str | None = None
    beside: bool = False


def split(stream: Stream, limit: int = MAX_BYTES) -> Iterator[Piece]:
    """The JSON texts of a stream, in order."""
    blank_lines = 0
    chunks = _chunks(stream)
    while True:
        head = next(chunks, b"")
        if not head:
            yield Piece("", b"", "is empty")
            return
        head = head.removeprefix(b"\xef\xbb\xbf")
        start = head.lstrip()
        if start:
            break
        blank_lines += head.count(b"\n")
    chunks = chain((head,), chunks)
    if _are_lines(start):
        yield from _each_line(_lines(chunks, blank_lines + 1, limit), limit)
    elif start.startswith(b"["):
        yield from _items(chunks, limit)
    elif (wrapped := _find_list(start)) is not None:
        key, name, at = wrapped
        yield from _items(chain((start[at:],), islice(chunks, 1, None)), limit, name.decode(), start[:key])
    else:
        yield from _lines_or_one(chunks, blank_lines + 1, limit)


def _chunks(stream: Stream) -> Iterator[bytes]:
    """The stream in pieces of one size but for the last; an error comes after all that was read before it."""
    while True:
        parts: list[bytes] = []
        size, failed = 0, None
        try:
            while size < _CHUNK and (part := stream.read(_CHUNK - size)):
                parts.append(part)
                size += len(part)
        except READ_ERRORS as error:
            failed = error
        if parts:
            yield b"".join(parts)
        if failed is not None:
            raise failed
        if size < _CHUNK:
            return


def _are_lines(start: bytes) -> bool:
    """Whether a text is lines, each a JSON text; as far as two of them show."""
    line, _, rest = start.partition(b"\n")
    if rest.lstrip()[:1] != start[:1]:
        return False
    try:
        return isinstance(json.loads(line), list | dict)
    except (ValueError, RecursionError):
        return False


def _find_list(start: bytes) -> tuple[int, bytes, int] | None:
    """Where the object that a text begins with has a list of conversations: the place of the key, the key, the list.

    None if it has none, or none within this beginning of the text.
    """
    key = 1
    for name, place in _keys(start, 0) if start.startswith(b"{") else ():
        if _LISTS.fullmatch(name) and start.startswith(b"[", place):
            item = place + 1 + len(start[place + 1 :]) - len(start[place + 1 :].lstrip())
            if start.startswith(b"{", item) and any(_CONVERSATION.fullmatch(inner) for inner, _ in _keys(start, item)):
                return key, name, place
        key = _after_value(start, place) or len(start)
    return None


def _keys(text: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """The keys of the object at a place of a text, and where the value of each begins; as far as the text goes."""
    position: int | None = at + 1
    while position is not None and (found := _KEY.match(text, position)) is not None:
        yield found[1], found.end()
        position = _after_value(text, found.end())


def _after_value(text: bytes, position: int) -> int | None:
    """Where the value at a place of a text ends; None if the text ends before it does."""
    depth = 0
    while True:
        skipped = (_INSIDE if depth else _BETWEEN).match(text, position)
        position = skipped.end() if skipped is not None else position
        token = text[position : position + 1]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]") and depth:
            depth -= 1
        elif token in (b",", b"}"):
            return position
        else:  # nothing, a string that is cut off, or no JSON
            return None
        position += 1


def _lines_or_one(chunks: Iterator[bytes], first: int, limit: int) -> Iterator[Piece]:
    lines = _lines(chunks, first, limit)
    seen: list[tuple[int, bytes | None]] = []
    texts = 0
    for number, line in lines:
        seen.append((number, line))
        if (not texts and line is None) or (line is not None and line.startswith(b"{") and _is_object(line)):
            break
        texts += line is None or bool(line.strip())
        if texts == _PEEK or line is None:
            yield _whole(chain(seen, lines), limit)
            return
    else:
        yield _whole(iter(seen), limit)
        return
    yield from _each_line(chain(seen, lines), limit)


def _each_line(lines: Iterable[tuple[int, bytes | None]], limit: int) -> Iterator[Piece]:
    for number, line in lines:
        if line is None:
            yield Piece(f"line {number}", b"", _too_long(limit))
        elif line and not line.isspace():
            yield Piece(f"line {number}", line)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _whole(lines: Iterator[tuple[int, bytes | None]], limit: int) -> Piece:
    parts: list[bytes] = []
    size = 0
    for _, line in lines:
        size += limit + 1 if line is None else len(line) + 1
        if size > limit:
            return Piece("", b"", _too_long(limit))
        parts.append(line or b"")
    return Piece("", b"\n".join(parts))


def _lines(chunks: Iterator[bytes], number: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """The lines with their numbers; None for one that is too long."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield number, (b"".join((*parts, end)) if size + len(end) <= limit else None)
            parts.clear()
            size, number = 0, number + 1
        size += len(rest)
        if size <= limit:
            parts.append(rest)
        else:
            parts.clear()
    if size:
        yield number, (b"".join(parts) if size <= limit else None)


def _items(chunks: Iterator[bytes], limit: int, name: str = "", before: bytes = b"") -> Iterator[Piece]:
    """The items of the list that `chunks` begin with; `name` and `before`: of the list in an object around it."""
    scan = _Scan(limit, name)
    for chunk in chunks:
        yield from scan.feed(chunk)
        if scan.depth == 0 and scan.index is not None:
            rest = chain((bytes(scan.buffer),), chunks)
            if name:
                yield from _beside(name, before, rest, limit)
            elif any(part.strip() for part in rest):
                yield Piece("after the list", b"", "expected the end of the file, found more")
            return
    yield Piece(f"{name}[{scan.index or 0}]", b"", "the file ends in the middle of the list")


def _beside(name: str, before: bytes, rest: Iterator[bytes], limit: int) -> Iterator[Piece]:
    """The object around a list, without it."""
    parts: list[bytes] = []
    size = len(before)
    for part in rest:
        parts.append(part)
        size += len(part)
        if size > limit:
            yield Piece(f"after {name}", b"", _too_long(limit))
            return
    after = b"".join(parts).strip()
    if not after.endswith(b"}"):
        yield Piece(f"after {name}", b"", "the file ends in the middle of the object")
        return
    fields = [part for part in (before.strip()[1:].strip(b", \t\r\n"), after[:-1].strip(b", \t\r\n")) if part]
    if fields:
        yield Piece("", b"{" + b",".join(fields) + b"}", beside=True)


class _Scan:
    """Where in a list the reading is: `index` of the item, `depth` of brackets, the item's bytes in `buffer`."""

    def __init__(self, limit: int, name: str = "") -> None:
        self.limit = limit
        self.name = name
        self.buffer = bytearray()
        self.position = 0
        self.depth = 0
        self.index: int | None = None
        self.in_string = False
        self.too_long = False

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        self.buffer += chunk
        start = 0  # of the item in the buffer
        while (token := self._next()) is not None:
            end = self.position - 1
            if token in b"{[":
                self.depth += 1
                if self.depth == 1:
                    self.index, start = 0, self.position
            elif token == b",":
                yield self._piece(start, end)
                start, self.index = self.position, (self.index or 0) + 1
            else:
                self.depth -= 1
                if self.depth == 0:
                    if self.index or self.too_long or self.buffer[start:end].strip():
                        yield self._piece(start, end)
                    start = self.position
                    break
        del self.buffer[:start]
        self.position -= start
        if len(self.buffer) > self.limit:
            self.too_long = True
            del self.buffer[: self.position]
            self.position = 0

    def _piece(self, start: int, end: int) -> Piece:
        position = f"{self.name}[{self.index}]"
        if self.too_long or end - start > self.limit:
            self.too_long = False
            return Piece(position, b"", _too_long(self.limit))
        data = bytes(self.buffer[start:end]).strip()
        return Piece(position, data, None if data else "expected a conversation, found nothing")

    def _next(self) -> bytes | None:
        """The next bracket (or comma between items) outside of strings; None if more bytes are needed."""
        while True:
            if self.in_string:
                rest = _STRING_REST.match(self.buffer, self.position)
                self.position = rest.end() if rest is not None else self.position
                # What stopped it is the closing quote, or a backslash whose next byte is yet to come.
                if self.buffer[self.position : self.position + 1] != b'"':
                    return None
                self.in_string = False
                self.position += 1
            skipped = (_BETWEEN if self.depth == 1 else _INSIDE).match(self.buffer, self.position)
            self.position = skipped.end() if skipped is not None else self.position
            token = bytes(self.buffer[self.position : self.position + 1])
            if not token:
                return None
            self.position += 1
            if token != b'"':
                return token
            self.in_string = True


def _too_long(limit: int) -> str:
    return f"is larger than {limit:,} bytes, the most that one conversation may have"
