"""What reading a file gives, item by item: a conversation, a problem, or the name of something that was left alone.

Positions are for people: "line 12" of JSON lines, "[3]" of a list, the key of an object of conversations, and before
any of these the member's name where the file is a ZIP.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3conv.model.state import ConversationState


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation, and where it was. `foreign`: in somebody else's format, not s3conv's JSON lines."""

    state: ConversationState
    file: str
    position: str
    foreign: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should have been a conversation and could not be read (or saved), where it was, and why."""

    file: str
    position: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.position, self.reason) if part)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A member of a ZIP that holds no conversations (an image, a settings file)."""

    file: str
    member: str
