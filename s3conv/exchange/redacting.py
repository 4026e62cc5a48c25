"""Redaction: what some patterns match is taken out of every text of a conversation before it is written.

Law: every text goes through, wherever it lies (messages, parts, tool calls, metadata, fields that are not known), but
for what says what a thing is: id and times of the conversation, roles, types of parts, names of fields. Each text is
searched by itself: what is spread over two of them is not found. The record of an import is left out: it has hashes of
what was said, and a short text can be found again by its hash.

Python's `re` looks for a match as long as it takes: some patterns take exponential time on some texts, and nothing in
a pattern says so reliably. `Redaction.busy_since` is for who watches over it; the command line does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.provenance import IMPORTED

MARK = "[redacted]"
"""What stands in place of what was matched."""

_KEPT = frozenset(("schema_version", "conversation_id", "current", "created_at", "updated_at"))
_NODE_KEPT = frozenset(("parent", "timestamp"))
_TYPES = frozenset(("type", "content_type"))


class Redaction:
    """Some patterns. `found` counts what was taken out."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Read the patterns, regular expressions of Python's `re`.

        Raises:
            InvalidInputError: one of them is none, or matches the empty text.
        """
        self.found = 0
        self.busy_since: float | None = None
        """When the conversation that it is at was begun, by `time.monotonic`; None between two."""
        self.working_on = ""
        self._patterns = [_compiled(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A conversation in its stored form, without what the patterns match; `fields` is not changed."""
        self.working_on = str(fields.get("conversation_id"))
        self.busy_since = time.monotonic()
        try:
            return {
                name: value
                if name in _KEPT
                else [self._node(node) for node in value]
                if name == "nodes" and isinstance(value, list)
                else self._value(value)
                for name, value in fields.items()
                if name != IMPORTED
            }
        finally:
            self.busy_since = None

    def _node(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {
            name: value
            if name in _NODE_KEPT
            else self._message(value)
            if name == "message" and isinstance(value, dict)
            else self._value(value)
            for name, value in node.items()
        }

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            if name == "role"
            else [self._part(part) for part in value]
            if name in ("content", "tool_calls") and isinstance(value, list)
            else self._value(value)
            for name, value in message.items()
        }

    def _part(self, part: Any) -> Any:
        if not isinstance(part, dict):
            return self._value(part)
        return {name: value if name in _TYPES else self._value(value) for name, value in part.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            for pattern in self._patterns:
                value, times = pattern.subn(MARK, value)
                self.found += times
            return value
        if isinstance(value, dict):
            return {name: self._value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner) for inner in value]
        return value


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidInputError(f"redact: {pattern!r} is no regular expression: {error}") from None
    if compiled.search("") is not None:
        raise InvalidInputError(f"redact: {pattern!r} matches nothing at all, so it would match everywhere")
    return compiled
