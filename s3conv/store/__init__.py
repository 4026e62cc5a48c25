"""The only I/O of s3conv: the `ObjectStore` contract and its backends, chosen by URL.

Law: `open_store` does no request and no file access. A backend and its SDK are imported when a URL asks for it, so
that `import s3conv` loads neither. Plain paths and environment variables are the CLI's business.
"""

from __future__ import annotations

import re
from typing import Literal, TypedDict, Unpack
from urllib.parse import unquote, urlsplit

from s3conv.errors import InvalidInputError, StorageError
from s3conv.store.base import LIST_PAGE as LIST_PAGE
from s3conv.store.base import Contended as Contended
from s3conv.store.base import Listed as Listed
from s3conv.store.base import Listing as Listing
from s3conv.store.base import NotModified as NotModified
from s3conv.store.base import ObjectHead as ObjectHead
from s3conv.store.base import ObjectStore as ObjectStore
from s3conv.store.base import PreconditionFailed as PreconditionFailed
from s3conv.store.base import RangeNotSatisfiable as RangeNotSatisfiable
from s3conv.store.base import StoredObject as StoredObject
from s3conv.store.base import Written as Written

_FORMS = "s3://bucket/prefix, file:///folder, memory://name"
# What S3 has ever allowed, legacy names of us-east-1 included.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class StoreOptions(TypedDict, total=False):
    """What an `s3://` store can be told. The other stores take no options.

    The first group has no say over a client that is passed in, and is refused beside one.
    """

    session: object
    """A `boto3.Session`; for asynchronous use an `aioboto3.Session`."""
    endpoint_url: str | None
    """The address of a store that is not AWS."""
    region: str | None
    addressing_style: Literal["auto", "path", "virtual"] | None
    fan_out: int
    """Requests in flight at once, and connections in the pool; 32 unless told."""

    client: object
    """A boto3 S3 client; for asynchronous use an aioboto3 one that has been entered. It is never closed by s3conv."""
    kms_key_id: str | None
    """Every object is written with SSE-KMS under this key."""
    expected_bucket_owner: str | None
    """An AWS account id; S3 refuses every request if the bucket belongs to another."""


def open_store(url: str, *, asynchronous: bool = False, **options: Unpack[StoreOptions]) -> ObjectStore:
    """The store of the archive at `url`; it makes no request before it is used.

    `asynchronous` says that its methods will be awaited on an event loop; stores in memory and in a directory serve
    both kinds of caller. Raises `InvalidInputError` for a URL or an option that cannot be used, and `StorageError` if
    the SDK that the URL needs is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("s3", "file", "memory"):
        raise InvalidInputError(f"{url!r} is not the URL of an archive: expected one of {_FORMS}")
    given = sorted(name for name, value in options.items() if value is not None)
    known = sorted(StoreOptions.__annotations__) if scheme == "s3" else []
    if unknown := [name for name in given if name not in known]:
        raise InvalidInputError(
            f"{', '.join(unknown)}: no such option for {scheme}://; it takes {', '.join(known) or 'none'}"
        )
    if scheme == "memory":
        return _open_memory(url, rest)
    if scheme == "file":
        return _open_file(url)
    return _open_s3(url, rest, asynchronous, options)


def _open_memory(url: str, name: str) -> ObjectStore:
    from s3conv.store.memory import MemoryStore

    if name and not all(name.split("/")):
        raise InvalidInputError(f"{url!r} has an empty part: expected memory://name")
    return MemoryStore(name)


def _open_file(url: str) -> ObjectStore:
    parsed = urlsplit(url)
    if parsed.netloc not in ("", "localhost"):
        raise InvalidInputError(f"{url!r} names the host {parsed.netloc!r}: expected file:///folder, three slashes")
    if parsed.query or parsed.fragment:
        raise InvalidInputError(f"{url!r}: write '?' and '#' in a folder's name as %3F and %23")
    path = unquote(parsed.path)
    if not path.startswith("/") or "\0" in path:
        raise InvalidInputError(f"{url!r} names no folder: expected file:///folder")
    try:
        from s3conv.store.local import LocalStore
    except ImportError as error:  # fcntl
        raise StorageError(f"{url!r}: archives in a directory need a POSIX system: {error}") from error
    return LocalStore(path, url)


def _open_s3(url: str, rest: str, asynchronous: bool, options: StoreOptions) -> ObjectStore:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        hint = "; use the alias of an access point in place of its ARN" if rest.startswith("arn:") else ""
        raise InvalidInputError(f"{url!r}: {bucket!r} is no bucket's name: expected s3://bucket/prefix{hint}")
    if bucket.endswith("--x-s3"):
        raise InvalidInputError(
            f"{url!r} is a directory bucket: S3 lists those in no order, an archive needs byte order"
        )
    prefix = prefix.rstrip("/")
    if prefix and (not prefix.isprintable() or any(part in ("", ".", "..") for part in prefix.split("/"))):
        raise InvalidInputError(f"{url!r}: a part of the prefix is empty, '.', '..' or not printable")
    try:
        from s3conv.store.s3 import open_s3
    except ImportError as error:
        raise StorageError(f"{url!r} needs boto3, which is not installed: pip install boto3") from error
    return open_s3(url, bucket, prefix, asynchronous, options)
