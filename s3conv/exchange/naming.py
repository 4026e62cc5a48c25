"""Names of the files that an export writes, one per conversation.

Law: two ids never share a file, also where the file system does not tell "a" from "A"; no id leaves its folder, and
none has a name that a system keeps for itself.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from s3conv.format.keys import encode_id

_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_CAPITAL = re.compile(r"[A-Z]")
_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def file_name(conversation_id: str, suffix: str) -> str:
    """The name of a conversation's file: its id as in the archive's keys, and `suffix`.

    An id with capitals, or with the name of a device of Windows, is marked by its hash besides.

    Args:
        conversation_id: any that an archive can hold.
        suffix: such as ".html".

    Returns:
        At most 197 characters and the suffix, all of them of `A-Za-z0-9_-%~`.

    Raises:
        InvalidInputError: no archive can hold this id.
    """
    encoded = encode_id(conversation_id)
    whole = "~" not in encoded  # a long one is cut, and marked by its hash already
    if whole and (_DEVICE.fullmatch(encoded) or _CAPITAL.search(_ESCAPE.sub("", encoded))):
        encoded = f"{encoded}~{hashlib.sha256(conversation_id.encode()).hexdigest()[:16]}"
    return encoded + suffix


def link_to(name: str) -> str:
    """A relative URL of a file with this name."""
    return quote(name, safe="")
