"""`S3Store`: an archive in a bucket of S3, or of a store that speaks its protocol.

Law: every request is built here and every answer read here, once for boto3 and aioboto3 alike; the transports only
send. A conditional PUT is sent exactly once. No exception of the SDK leaves this class. What S3's errors mean is left
to `s3_errors`, when to send again to the core.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import pairwise
from time import time
from typing import Any, Literal

from s3conv.errors import AccessDeniedError, InvalidInputError, StoreError, UnavailableError
from s3conv.store.base import (
    LIST_PAGE,
    Listed,
    Listing,
    ObjectHead,
    ObjectStore,
    PreconditionFailed,
    StoredObject,
    Written,
    check_conditions,
    check_delete,
    check_holds,
    check_key,
    check_prefix,
    check_span,
)
from s3conv.store.call import repeated, time_left
from s3conv.store.s3_errors import BrokenBody, KeyMissing, is_wordless, refused, translate
from s3conv.store.s3_transport import FAN_OUT, Answer, ClientSettings, Transport

_BODY_ATTEMPTS = 4
"""GETs until a body arrives whole. The SDK retries a request, but not the reading of its answer."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CONTENT_TYPES = {
    ".zst": "application/zstd",
    ".json": "application/json",
    # Of exports, which people open.
    ".jsonl": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class S3Store:
    """An `ObjectStore` under `prefix` in `bucket`."""

    def __init__(
        self,
        url: str,
        bucket: str,
        prefix: str,
        transport: Transport,
        *,
        kms_key_id: str | None = None,
        expected_bucket_owner: str | None = None,
    ) -> None:
        """No request is made. `prefix` has no slash at either end; it may be empty."""
        self.url = url
        self.fan_out = transport.fan_out
        self._bucket = bucket
        self._prefix = prefix
        self._root = f"{prefix}/" if prefix else ""
        self._transport = transport
        self._always = {"Bucket": bucket}
        if expected_bucket_owner is not None:
            self._always["ExpectedBucketOwner"] = expected_bucket_owner
        self._written = {}
        if kms_key_id is not None:
            self._written = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id}
        self._bucket_seen = False

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """See `ObjectStore.get`."""
        check_key(key)
        check_span(span, if_none_match)
        wanted = {"IfNoneMatch": if_none_match} if if_none_match is not None else {}
        if span is not None:
            wanted["Range"] = f"bytes={span[0]}-{sum(span) - 1}"
        try:
            answer = await self._call("get_object", self._root + key, **wanted)
        except KeyMissing:
            return None
        where = self._where(self._root + key)
        body, etag = answer["Body"], ""
        if span is None:
            etag = _said(answer, "ETag", where)
        else:
            body = _part(answer, span, where)
        return StoredObject(body, etag, _last_modified(answer), _date(answer), answer.get("Metadata", {}))

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        check_key(key)
        return await self._head(self._root + key)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        """See `ObjectStore.put`."""
        check_key(key)
        check_conditions(if_match, if_none_match)
        parameters: dict[str, Any] = {"Body": body, **self._written}
        if if_match is not None:
            parameters["IfMatch"] = if_match
        if if_none_match is not None:
            parameters["IfNoneMatch"] = if_none_match
        if metadata:
            parameters["Metadata"] = dict(metadata)
        for ending, content_type in _CONTENT_TYPES.items():
            if key.endswith(ending):
                parameters["ContentType"] = content_type
        try:
            answer = await self._call("put_object", self._root + key, **parameters)
        except KeyMissing as error:
            # S3 answers 404 to If-Match on a key that is not there; without it, a 404 is no answer of the protocol.
            if if_match is None:
                raise StoreError(str(error)) from error
            raise PreconditionFailed(str(error)) from error
        return Written(_said(answer, "ETag", self._where(self._root + key)), _date(answer))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        check_delete(keys)
        if len(keys) == 1:
            try:
                await self._call("delete_object", self._root + keys[0])
            except KeyMissing:
                return
        elif keys:
            names = [{"Key": self._root + key} for key in keys]
            answer = await self._call("delete_objects", None, Delete={"Objects": names, "Quiet": True})
            failed = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
            if failed:
                first = failed[0]
                message = f"{first.get('Message', '')} [{len(failed)} of {len(keys)} keys failed]".strip()
                where = self._where(first.get("Key", ""))
                raise refused(first.get("Code", ""), message, "delete_objects", where)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """See `ObjectStore.list`."""
        check_prefix(prefix)
        start = {"StartAfter": self._root + after} if after else {}
        follow: dict[str, str] = {}
        while True:
            answer = await self._call(
                "list_objects_v2", None, Prefix=self._root + prefix, MaxKeys=LIST_PAGE, **start, **follow
            )
            # A name that ends in "/" is a folder that some console made.
            found = [entry for entry in answer.get("Contents", ()) if not entry["Key"].endswith("/")]
            more = bool(answer.get("IsTruncated"))
            if found or not more or not answer.get("NextContinuationToken"):
                break
            # S3 may cut a page before its first key (where many delete markers lie); `after` cannot lead on from there.
            follow = {"ContinuationToken": answer["NextContinuationToken"]}
        names = [entry["Key"] for entry in found]
        last = self._root + after
        if any(not name.startswith(self._root + prefix) for name in names) or any(
            one.encode() >= other.encode() for one, other in pairwise([last, *names])
        ):
            raise StoreError(f"{self._where(self._root + prefix)}: the store does not list in byte order: use another")
        date = _date(answer)
        cut = len(self._root)
        listed = [
            Listed(name[cut:], entry["LastModified"].timestamp(), entry["Size"])
            for name, entry in zip(names, found, strict=True)
        ]
        return Listing(listed, more and bool(listed), date)

    async def enclosing(self, name: str) -> Sequence[str]:
        """See `ObjectStore.enclosing`. A prefix that the credentials may not read is passed over, as it must be: a
        policy may grant this root alone."""
        check_key(name)
        found = []
        parts = self._prefix.split("/") if self._prefix else []
        for length in range(len(parts) - 1, -1, -1):
            outer = "/".join(parts[:length])
            try:
                head = await self._head(f"{outer}/{name}" if outer else name)
            except AccessDeniedError:
                continue
            if head is not None:
                found.append(f"s3://{self._bucket}/{outer}".rstrip("/"))
        return found

    async def close(self) -> None:
        """See `ObjectStore.close`. An injected client stays open."""
        await self._transport.close()

    async def _head(self, name: str) -> ObjectHead | None:
        try:
            answer = await self._call("head_object", name)
        except KeyMissing:
            if self._bucket_seen:
                return None
            # A HEAD's 404 has no body: it could be the bucket that is missing. A GET says which.
            try:
                answer = await self._call("get_object", name)
            except KeyMissing:
                return None
        etag, size = (_said(answer, header, self._where(name)) for header in ("ETag", "ContentLength"))
        return ObjectHead(etag, _last_modified(answer), size, answer.get("Metadata", {}))

    async def _call(self, operation: str, name: str | None, **parameters: Any) -> Answer:
        key = {"Key": name} if name is not None else {}
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._transport.call(operation, {**self._always, **key, **parameters})
            except Exception as error:
                broken = isinstance(error, BrokenBody) or is_wordless(error)
                if broken and operation == "get_object" and attempt < _BODY_ATTEMPTS and time_left() > 0:
                    repeated()
                    continue
                translated = translate(error, operation, self._where(name or parameters.get("Prefix", self._root)))
                if translated is None:
                    raise
                if isinstance(translated, KeyMissing) and operation != "head_object":
                    self._bucket_seen = True
                raise translated from error
            self._bucket_seen = True
            return answer

    def _where(self, name: str) -> str:
        return f"s3://{self._bucket}/{name}"


def open_s3(url: str, bucket: str, prefix: str, asynchronous: bool, options: Mapping[str, Any]) -> ObjectStore:
    """The store for `open_store`, whose `StoreOptions` are documented there. Raises `InvalidInputError` as it does."""
    given = {name: value for name, value in options.items() if value is not None}
    client = given.pop("client", None)
    kept = {name: given.pop(name) for name in ("kms_key_id", "expected_bucket_owner") if name in given}
    if client is not None and given:
        raise InvalidInputError(f"{', '.join(sorted(given))}: belongs to the making of a client, and one was passed in")
    if given.get("fan_out", FAN_OUT) < 1:
        raise InvalidInputError(f"fan_out is {given['fan_out']}: expected 1 or more")
    settings = ClientSettings(**given)
    transport: Transport
    if asynchronous:
        from s3conv.store.s3_aio import AioTransport, require_aioboto3

        if client is None:
            require_aioboto3()
        transport = AioTransport(settings, client)
    else:
        from s3conv.store.s3_boto3 import Boto3Transport

        transport = Boto3Transport(settings, client)
    return S3Store(url, bucket, prefix, transport, **kept)


def _part(answer: Answer, span: tuple[int, int], where: str) -> bytes:
    """The bytes of `span`, out of the answer to a GET that asked for them.

    A store may ignore the question and send the whole (200, without Content-Range), or send what there is of the range.
    Whatever else does not say what it holds, or says what it does not hold, is refused: wrong bytes would be believed.
    """
    body: bytes = answer["Body"]
    start, length = span
    status, said = answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("ContentRange")
    if status == 200 and said is None:
        check_holds(where, len(body), span)
        return body[start : start + length]
    if sent := _CONTENT_RANGE.fullmatch(said or ""):
        first, last = int(sent[1]), int(sent[2])
        if first == start and last - first + 1 == len(body):
            if len(body) == length:
                return body
            if sent[3] == str(last + 1):  # All that there is, to the end of the object.
                check_holds(where, last + 1, span)
    raise StoreError(
        f"{where}: asked for bytes {start} to {start + length - 1}, the store answered {status} with {len(body)} bytes "
        f"and the Content-Range {said!r}: it, or a proxy before it, does not keep to HTTP; use another"
    )


def _said(answer: Answer, header: str, where: str) -> Any:
    """What a header of an answer says. One that S3 always sends is missing where a proxy answers in its place."""
    if answer.get(header) in (None, ""):
        raise UnavailableError(f"{where}: the store's answer has no {header}: it may be a proxy's; try later")
    return answer[header]


def _last_modified(answer: Answer) -> float:
    modified = answer.get("LastModified")
    return float(modified.timestamp()) if modified is not None else _date(answer)


def _date(answer: Answer) -> float:
    """The Date of the answer. A store that sends none, or not a date, leaves only this machine's clock."""
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(header).timestamp()
    except (TypeError, ValueError):
        return time()
