"""Ids for conversations whose source gives them none: a hash of what the source says, and how often it said so.

Law: the same file gives the same ids, so that importing it again changes nothing; two equal conversations of one file
are two. Memory: 8 bytes a conversation.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any

from s3conv.exchange.values import fingerprint

_DIGITS = 32
_RECENT = 1 << 16


class Names:
    """The names that were given in one file (or member of one)."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: list[array[int]] = []
        self._repeated: dict[int, int] = {}

    def name(self, kind: str, value: Any) -> str:
        """The id of the conversation that is this JSON value: `kind-hash`, and from the second on `kind-hash~2` …

        Raises:
            InvalidInputError: the value has no JSON form.
        """
        digits = fingerprint(value, _DIGITS)
        # Half of the hash is enough to count by: what is counted twice by accident has a name of its own all the same.
        count = self._count(int(digits[:16], 16))
        return f"{kind}-{digits}" if count == 1 else f"{kind}-{digits}~{count}"

    def _count(self, key: int) -> int:
        if key in self._repeated:
            self._repeated[key] += 1
        elif key in self._recent or any(_holds(keys, key) for keys in self._older):
            self._repeated[key] = 2
        else:
            self._recent.add(key)
            if len(self._recent) == _RECENT:
                self._older.append(array("Q", sorted(self._recent)))
                self._recent.clear()
            return 1
        return self._repeated[key]


def _holds(keys: array[int], key: int) -> bool:
    place = bisect_left(keys, key)
    return place < len(keys) and keys[place] == key
