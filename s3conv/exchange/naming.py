"""Names of the files that an export writes, one per conversation.

Law: two ids never share a file, also where the file system does not tell "a" from "A"; no id leaves its folder, and
none has a name that a system keeps for itself, or that of the file that lists all.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from s3conv.format.keys import encode_id

_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_CAPITAL = re.compile(r"[A-Z]")
_TAKEN = re.compile(r"index|con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
"""The list of all, and the devices of Windows."""


def file_name(conversation_id: str, suffix: str, branch: int | None = None) -> str:
    """The name of a conversation's file: its id as in the archive's keys, and `suffix`.

    An id with capitals, with the name of a device of Windows, or "index", is marked by its hash besides.

    Args:
        conversation_id: any that an archive can hold.
        suffix: such as ".html".
        branch: the number of the branch, where each has a file of its own.

    Returns:
        At most 197 characters, the branch's number and the suffix, all of them of `A-Za-z0-9_-%~`.

    Raises:
        InvalidInputError: no archive can hold this id.
    """
    encoded = encode_id(conversation_id)
    whole = "~" not in encoded  # a long one is cut, and marked by its hash already
    if whole and (_TAKEN.fullmatch(encoded) or _CAPITAL.search(_ESCAPE.sub("", encoded))):
        encoded = f"{encoded}~{hashlib.sha256(conversation_id.encode()).hexdigest()[:16]}"
    # No id that is whole has a "~", and a hash is longer than a number.
    return encoded + (f"~{branch}" if branch is not None else "") + suffix


def link_to(name: str) -> str:
    """A relative URL of a file with this name."""
    return quote(name, safe="")
