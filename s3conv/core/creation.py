"""Create an archive: try out whether the store keeps conditional writes, then write manifest and descriptor.

Law: an archive is only made on a store on which no update can be lost. The descriptor is written last; it is what
makes a prefix an archive.
"""

from __future__ import annotations

from s3conv.bridge import Runner, ordered_map
from s3conv.core.commit import SENDS
from s3conv.core.context import Context
from s3conv.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
    UnsafeStoreError,
)
from s3conv.format.control import Descriptor
from s3conv.format.entry import check_partition_by
from s3conv.format.keys import DESCRIPTOR, MANIFEST, PROBE
from s3conv.format.manifest import Manifest, decode_manifest
from s3conv.store.base import Contended, PreconditionFailed

ROUNDS = 3
"""Races that the probe runs. Ceph in a versioned bucket let two writers win in 60 of 60 rounds."""

WRITERS = 16
"""Parallel writers in each of them."""


async def create(context: Context, racing: Runner, partition_by: str | None, exist_ok: bool) -> None:
    """Make the store's root an archive; see `Archive.create`.

    Args:
        context: the archive to be.
        racing: a runner that really runs `WRITERS` jobs at once.
        partition_by: metadata path by which the index is clustered, or None.
        exist_ok: whether an archive that is there already will do: one with this `partition_by`, or any if it is None.
    """
    check_partition_by(partition_by)
    if await _is_there(context, partition_by, exist_ok):
        return
    if around := await context.store.enclosing(DESCRIPTOR):
        raise InvalidInputError(
            f"{context.store.url} lies inside the archive {around[0]}: an archive may not lie in another; choose "
            f"another URL, or, if that one was made by mistake and is empty, delete its {DESCRIPTOR} and {MANIFEST}"
        )
    await probe(context, racing)
    if not await _write_manifest(context):
        if await _is_there(context, partition_by, exist_ok):
            return  # somebody was faster, and it is in use already
        raise InvalidInputError(
            f"{context.store.url} has a manifest but no {DESCRIPTOR}: it holds what is left of an archive; restore its "
            "descriptor, or choose another URL"
        )
    descriptor = Descriptor(partition_by, context.new_id())
    await _write_once(context, DESCRIPTOR, descriptor.encode())
    # Whoever wrote it: our own, perhaps by a request whose answer was lost, or that of somebody who was faster.
    if (await context.descriptor()).nonce != descriptor.nonce:
        await _is_there(context, partition_by, exist_ok)


async def _is_there(context: Context, partition_by: str | None, exist_ok: bool) -> bool:
    """Whether there is an archive already.

    Raises:
        AlreadyExistsError: there is, and it will not do.
    """
    try:
        found = await context.descriptor()
    except NotFoundError:
        return False
    if not exist_ok:
        raise AlreadyExistsError(f"there is an archive at {context.store.url} already: open it, or choose another URL")
    if partition_by not in (None, found.partition_by):
        raise AlreadyExistsError(
            f"there is an archive at {context.store.url} already, with partition_by {found.partition_by!r}; expected "
            f"{partition_by!r}, which cannot be changed: open it as it is, or choose another URL"
        )
    return True


async def _write_manifest(context: Context) -> bool:
    """Write the first manifest, if there is none; False: there is one that is not a first one."""
    if await _write_once(context, MANIFEST, Manifest(generation=0, nonce=context.new_id()).encode()):
        return True
    # One of an earlier create that did not get further; or of an archive, or what is left of one.
    found = await context.store.get(MANIFEST)
    return found is not None and decode_manifest(found.body, context.name(MANIFEST)).generation == 0


async def _write_once(context: Context, key: str, body: bytes) -> bool:
    """PUT with If-None-Match until the answer is definite; False: there is one already, which may be this one."""
    for attempt in range(SENDS):
        if attempt:
            await context.back_off(attempt)
        try:
            await context.store.put(key, body, if_none_match="*")
        except PreconditionFailed:
            return False
        except (Contended, UnavailableError):
            continue
        return True
    raise OutcomeUnknownError(f"no answer to {SENDS} requests to write {context.name(key)}: try again later")


async def probe(context: Context, racing: Runner) -> None:
    """Try what the write protocol rests on, below `probe/`.

    Raises:
        UnsafeStoreError: the store does not keep conditional writes; names what failed.
    """
    folder = f"{PROBE}{context.new_id()}{context.new_id()}/"
    keys = [f"{folder}created", f"{folder}missing", *(f"{folder}race{number}" for number in range(ROUNDS))]
    try:
        await _probe_conditions(context, keys[0], keys[1])
        for key in keys[2:]:
            await _probe_race(context, racing, key)
    finally:
        await context.store.delete(keys)


async def _probe_conditions(context: Context, key: str, missing: str) -> None:
    store = context.store
    written = await store.put(key, b"1", if_none_match="*")
    await _refused(context, key, "it created an object that was there (If-None-Match: *)", if_none_match=True)
    await _refused(
        context, key, "it replaced an object whose ETag was another one (If-Match)", if_match=f'"{"0" * 32}"'
    )
    found = await store.get(key)
    if found is None or found.body != b"1":
        raise _unsafe(context, "a write that it had refused changed the object")
    if found.etag != written.etag:
        raise _unsafe(context, "PUT and GET gave two different ETags for one object")
    await _refused(context, missing, "it created an object although If-Match named one", if_match=written.etag)
    if await store.get(missing) is not None:
        raise _unsafe(context, "it created an object by a write that it had refused (If-Match on a missing key)")


async def _refused(
    context: Context, key: str, otherwise: str, *, if_match: str | None = None, if_none_match: bool = False
) -> None:
    for attempt in range(SENDS):
        if attempt:
            await context.back_off(attempt)
        try:
            await context.store.put(key, b"2", if_match=if_match, if_none_match="*" if if_none_match else None)
        except PreconditionFailed:
            return
        except Contended:
            continue
        raise _unsafe(context, otherwise)
    raise UnavailableError(f"{context.name(key)}: {SENDS} writes in a row were answered 409; try again later")


async def _probe_race(context: Context, racing: Runner, key: str) -> None:
    first = await context.store.put(key, b"start", if_none_match="*")

    async def write(number: int) -> int | None:
        try:
            await context.store.put(key, b"%d" % number, if_match=first.etag)
        except (PreconditionFailed, Contended):
            return None
        return number

    winners = [n async for n in ordered_map(racing, write, range(WRITERS), WRITERS) if n is not None]
    if len(winners) > 1:
        raise _unsafe(context, f"{len(winners)} of {WRITERS} parallel writers that named one ETag all won (If-Match)")
    found = await context.store.get(key)
    expected = b"%d" % winners[0] if winners else b"start"
    if found is None or found.body != expected:
        raise _unsafe(context, "after a race of writers (If-Match) the object was not that of the winner")
    if not winners:
        raise _unsafe(context, f"none of {WRITERS} parallel writers that named the right ETag won (If-Match)")


def _unsafe(context: Context, what: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"{context.store.url} cannot hold an archive, because updates would be lost: {what}; use a store that keeps "
        "conditional writes (on S3: a bucket without versioning if the server is Ceph)"
    )
