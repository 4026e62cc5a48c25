"""Keys: where everything lies below an archive's root.

Law: two ids never share a key, no id can leave its prefix, and no metadata is in a key (keys show up in access logs).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote

from s3conv.errors import InvalidInputError

MAX_ID_BYTES = 1024
"""Longest conversation id, in bytes of UTF-8."""

MAX_ENCODED_ID = 180
"""Longest encoded id that is used whole; S3 keys end at 1,024 bytes, file names at 255."""

DESCRIPTOR = "s3conv.json"
MANIFEST = "index/manifest.json"
LOG = "index/log/"
SEGMENTS = "index/segments/"
RECENT = "index/recent/"
CONVERSATIONS = "conversations/"
PROBE = "probe/"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile(f"[{_CROCKFORD}]{{26}}")
_SAFE = re.compile(f"[A-Za-z0-9_-]{{1,{MAX_ENCODED_ID}}}")
"""What is an id, and its own file name."""


def check_id(conversation_id: str) -> str:
    """Return the id if it can be used, else raise `InvalidInputError`."""
    if not isinstance(conversation_id, str):
        raise InvalidInputError(f"conversation_id: expected a string, found {type(conversation_id).__name__}")
    try:
        length = len(conversation_id.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"conversation_id {conversation_id[:60]!a} has a lone surrogate: it has no UTF-8"
        ) from None
    if not 1 <= length <= MAX_ID_BYTES:
        raise InvalidInputError(
            f"conversation_id {conversation_id[:60]!r} has {length} bytes of UTF-8: expected 1 to {MAX_ID_BYTES}"
        )
    return conversation_id


def encode_id(conversation_id: str) -> str:
    """The id as a file name: all but `A-Za-z0-9_-` percent-encoded, a long one cut and marked by its hash."""
    if type(conversation_id) is str and _SAFE.fullmatch(conversation_id):
        return conversation_id
    check_id(conversation_id)
    # quote() leaves '.' and '~' as they are; neither may be left: '..' is a way out, '~' marks cut ids.
    encoded = quote(conversation_id, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(encoded) <= MAX_ENCODED_ID:
        return encoded
    return f"{encoded[:100]}~{hashlib.sha256(conversation_id.encode()).hexdigest()}"


_HH = [f"{number:02x}" for number in range(256)]


def digest_of(conversation_id: str) -> bytes:
    """The SHA-256 of an id."""
    return hashlib.sha256(conversation_id.encode()).digest()


def document_key(conversation_id: str, digest: bytes | None = None) -> str:
    """Where a conversation's document, tombstone or stub lies. `digest`: its `digest_of`, where that is known."""
    encoded = encode_id(conversation_id)
    return f"{CONVERSATIONS}{_HH[(digest or digest_of(conversation_id))[0]]}/{encoded}.json.zst"


def id_hash(conversation_id: str) -> str:
    """What stands for an id in the names of its intents."""
    return hashlib.sha256(conversation_id.encode()).hexdigest()[:32]


def log_prefix(partition: str) -> str:
    """The prefix that holds the intents of a partition (and of those few that share its hash).

    Args:
        partition: canonical JSON of the partition's value.
    """
    return f"{LOG}{hashlib.sha256(partition.encode()).hexdigest()[:4]}/"


def intent_key(prefix: str, conversation_id: str, revision: int, write: str) -> str:
    """Where one intent lies; `prefix` is a `log_prefix`."""
    return f"{prefix}{id_hash(conversation_id)}.{revision}.{write}.json.zst"


def ulid(seconds: float, random: int) -> str:
    """A fresh name that sorts by its time: 48 bits of milliseconds and 80 random ones, in Crockford's base 32."""
    number = int(seconds * 1000) % 2**48 << 80 | random % 2**80
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(name: str) -> bool:
    """Whether `name` is one."""
    return _ULID.fullmatch(name) is not None


def batch_key(prefix: str, write: str) -> str:
    """Where the intents of one `save_many` lie; `prefix` is a `log_prefix`."""
    return f"{prefix}batch.{write}.json.zst"


@dataclass(frozen=True, slots=True)
class LogName:
    """What the key of a log object says. A batch has neither id hash nor revision."""

    key: str
    write: str
    id_hash: str | None = None
    revision: int = 0


_LOG_NAME = re.compile(
    r"index/log/[0-9a-f]{4}/(?:batch|([0-9a-f]{32})\.([1-9][0-9]{0,17}))\.([0-9a-f]{1,64})\.json\.zst"
)


def parse_log_key(key: str) -> LogName | None:
    """Read the key of a log object; None if it is none of ours."""
    match = _LOG_NAME.fullmatch(key)
    if match is None:
        return None
    hashed, revision, write = match.groups()
    return LogName(key, write, hashed, int(revision) if revision else 0)
