"""What reading a file gives, item by item: a conversation, a problem, or the name of something that was left alone.

Positions are for people: "line 12" of JSON lines, "[3]" of a list, the key of an object of conversations, and before
any of these the member's name where the file is a ZIP or tar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s3conv.model.state import ConversationState

Row = tuple[str, Mapping[str, Any]]
"""A position, and the object there: a part of a conversation that is many of them."""

Joined = Iterator[tuple[str, ConversationState | str]]
"""The conversations that rows make, each with the position of its first row; or the reason why there is none."""


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation, and where it was.

    `foreign`: in somebody else's format, not s3conv's JSON lines. `size`: bytes of its JSON; 0 if not known.
    """

    state: ConversationState
    file: str
    position: str
    foreign: bool
    size: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should have been a conversation and could not be read (or saved), where it was, and why.

    `unknown`: it is sound JSON, in no format that is known.
    """

    file: str
    position: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.position, self.reason) if part)


@dataclass(frozen=True, slots=True)
class Ignored:
    """What holds no conversations: a member of a ZIP (an image, a settings file), or what lies beside a list of them.

    `member` is "" where a whole file of a folder was left alone.
    """

    file: str
    member: str
