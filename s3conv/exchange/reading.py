"""Reading files of conversations, in whatever known format they are.

Law: the format is told by content, item by item, never by a name. An item that cannot be read becomes a `Problem` and
the next one is read. Files are streamed, so that memory grows with one conversation and not with the file (a flat list
of messages excepted, where any message may belong to any tree).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from os import PathLike, fspath
from typing import Any

from s3conv.errors import InvalidInputError, StorageError
from s3conv.exchange import chatgpt, oasst
from s3conv.exchange.found import Found, Ignored, Problem
from s3conv.exchange.records import Piece, split
from s3conv.exchange.sources import READ_ERRORS, Member, Skipped, open_members
from s3conv.exchange.values import parse
from s3conv.format.document import state_from_stored
from s3conv.model.state import ConversationState

Item = Found | Problem | Ignored
Reader = Callable[[], ConversationState]

_EXPECTED = "expected a conversation of ChatGPT, OASST, dataknobs or s3conv"


def read_conversations(path: str | PathLike[str], count: Callable[[int], None] = lambda read: None) -> Iterator[Item]:
    """The conversations of a file: plain, gzip or ZIP; JSON lines, a list, or one JSON value.

    Args:
        path: of the file.
        count: called with the number of bytes each time that some were read from the disk.

    Returns:
        `Found` and `Problem` in the file's order, and `Ignored` for members of a ZIP that hold no conversations.
        Raises nothing: a file that cannot be read is a `Problem` too.
    """
    file = fspath(path)
    read = False
    try:
        for member in open_members(path, count):
            if isinstance(member, Skipped):
                yield Problem(file, member.name, member.reason) if member.reason else Ignored(file, member.name)
                continue
            read |= yield from _read_member(file, member)
        if not read:
            yield Problem(file, "", "holds no conversations")
    except READ_ERRORS as error:
        yield Problem(file, "", f"cannot be read: {_said(error)}")


def _said(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason or type(error).__name__


def _read_member(file: str, member: Member) -> Generator[Item, None, bool]:
    """Yields the items of one stream; returns whether it was read, and not ignored."""
    rows: list[oasst.Row] = []
    prefix = f"{member.name}: " if member.name else ""
    first, last = True, ""
    try:
        for piece in split(member.stream):
            last = piece.position
            items = list(_read_piece(file, prefix, piece, rows))
            if first and member.optional and not rows and all(isinstance(item, Problem) for item in items):
                yield Ignored(file, member.name)
                return False
            first = False
            yield from items
    except READ_ERRORS as error:
        yield Problem(file, f"{prefix}{f'after {last}' if last else ''}".removesuffix(": "), _damaged(error))
    for position, made in oasst.read_flat(rows):
        where = f"{prefix}{position}"
        yield Problem(file, where, made) if isinstance(made, str) else Found(made, file, where, foreign=True)
    return True


def _damaged(error: BaseException) -> str:
    return f"the rest cannot be read: {_said(error)}"


def _read_piece(file: str, prefix: str, piece: Piece, rows: list[oasst.Row]) -> Iterator[Found | Problem]:
    where = f"{prefix}{piece.position}" if piece.position else prefix.removesuffix(": ")
    if piece.reason is not None:
        yield Problem(file, where, piece.reason)
        return
    try:
        value = parse(piece.data)
    except StorageError as error:
        yield Problem(file, where, str(error))
        return
    if isinstance(value, dict) and oasst.is_message(value):
        rows.append((piece.position, value))
        return
    own = isinstance(value, dict) and "nodes" in value and "edges" not in value
    for key, reader in _readers(value):
        position = where if key is None else ": ".join(part for part in (where, key) if part)
        try:
            yield Found(reader(), file, position, foreign=not own)
        except StorageError as error:
            yield Problem(file, position, str(error))
        except RecursionError:
            yield Problem(file, position, "nested too deeply to be read")


def _readers(value: Any) -> Iterator[tuple[str | None, Reader]]:
    """How to read the conversations of one JSON value; with their keys if it is an object of conversations."""
    if not isinstance(value, dict):
        yield None, lambda: _unknown(value)
    elif "mapping" in value:
        yield None, lambda: chatgpt.read(value)
    elif "nodes" in value and "edges" in value:
        yield None, lambda: ConversationState.from_dict(value)
    elif "nodes" in value:
        yield None, lambda: state_from_stored(value)
    elif "prompt" in value and ("message_tree_id" in value or "tree_state" in value):
        yield None, lambda: oasst.read_tree(value)
    elif any(isinstance(one, dict) and "mapping" in one for one in value.values()):
        for key, one in value.items():
            if isinstance(one, dict) and "mapping" in one:
                yield key, lambda one=one, key=key: chatgpt.read(one, key)  # type: ignore[misc]  # bound now, for later
            else:
                yield key, lambda one=one: _unknown(one)  # type: ignore[misc]  # bound now, for later
    else:
        yield None, lambda: _unknown(value)


def _unknown(value: Any) -> ConversationState:
    if isinstance(value, Mapping):
        names = ", ".join(repr(str(name)[:30]) for name in list(value)[:5]) or "no keys"
        found = f"an object with {names}{' …' if len(value) > 5 else ''}"
    else:
        found = {list: "a list", str: "a text", type(None): "null"}.get(type(value), type(value).__name__)
    raise InvalidInputError(f"{_EXPECTED}; found {found}")
