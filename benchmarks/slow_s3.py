"""A small S3 server on loopback that takes its time, so that requests in series show up as time.

It holds everything in memory and forgets it at the end. What it can do is what s3conv asks for: GET with a range or a
condition, HEAD, PUT with a condition, DELETE of one key or of many, and lists (version 2); it checks no signature. It
waits before it answers, many requests at once, each for as long as it is told, and writes down each request. Never
evidence of atomicity: the tests run on servers that are (tests/store).

Run by itself it serves a directory, for as long as its standard input stays open.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import Child, child

METADATA = ".metadata.json"
"""A file beside the objects of a directory, with the user metadata of those that have any, by key."""

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_META = "x-amz-meta-"


class Request(NamedTuple):
    """One request as the server saw it. Times are seconds of its clock, sizes those of the bodies."""

    began: float
    answered: float
    method: str
    """That of HTTP, or LIST."""
    path: str
    up: int
    down: int


class Stored(NamedTuple):
    """One object. `headers` are those that say what it is: its type and its user metadata."""

    body: bytes
    etag: str
    modified: float
    headers: dict[str, str]


@dataclass
class Objects:
    """All objects by bucket and key, "bucket/key". `keys` is kept sorted for lists."""

    lock: Lock = field(default_factory=Lock)
    by_key: dict[str, Stored] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def put(self, key: str, body: bytes, headers: dict[str, str]) -> str:
        """Write an object, and return its ETag; who calls holds the lock."""
        if key not in self.by_key:
            insort(self.keys, key)
        self.by_key[key] = Stored(body, _etag(body), time.time(), headers)
        return self.by_key[key].etag

    def drop(self, key: str) -> None:
        """Delete an object if it is there; who calls holds the lock."""
        if self.by_key.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def load(self, bucket: str, folder: Path) -> None:
        """Take in the files of a directory, but for those that an archive keeps for itself there."""
        described = folder / METADATA
        metadata: Mapping[str, dict[str, str]] = json.loads(described.read_text()) if described.exists() else {}
        for path in sorted(folder.rglob("*")):
            key = path.relative_to(folder).as_posix()
            if path.is_file() and not key.startswith(".") and "/." not in key:
                headers = {_META + name: value for name, value in metadata.get(key, {}).items()}
                body = path.read_bytes()
                self.by_key[f"{bucket}/{key}"] = Stored(body, _etag(body), path.stat().st_mtime, headers)
        self.keys = sorted(self.by_key)


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects
    requests: list[Request]
    delay = 0.0
    disable_nagle_algorithm = True
    wbufsize = -1  # one write for headers and body

    def answer(self) -> None:
        self.began = time.perf_counter()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.received = len(body)
        time.sleep(self.delay)
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        key = unquote(url.path).lstrip("/")
        try:
            if self.command == "PUT":
                self._put(key, body)
            elif self.command == "DELETE":
                with self.objects.lock:
                    self.objects.drop(key)
                self._send(204)
            elif "delete" in query:
                self._delete_many(key.rstrip("/"), body)
            elif "list-type" in query:
                self._list(key.rstrip("/"), query)
            else:
                self._get(key)
        except _Refused as refused:
            self._send(refused.status, f"<Error><Code>{refused}</Code><Message>so it is</Message></Error>".encode())

    def handle_expect_100(self) -> bool:
        """Say "go on" at once: boto3 waits a second for it before it sends a body."""
        said = super().handle_expect_100()
        self.wfile.flush()
        return said

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def _get(self, key: str) -> None:
        with self.objects.lock:
            found = self.objects.by_key.get(key)
        if found is None:
            raise _Refused(404, "NoSuchKey")
        if self.headers.get("If-None-Match") == found.etag:
            self._send(304, None, {"ETag": found.etag})
            return
        headers = {**found.headers, "ETag": found.etag, "Last-Modified": formatdate(found.modified, usegmt=True)}
        wanted = _RANGE.fullmatch(self.headers.get("Range") or "")
        if wanted is None:
            self._send(200, found.body, headers)
            return
        start, size = int(wanted[1]), len(found.body)
        if start >= size:
            raise _Refused(416, "InvalidRange")
        end = min(int(wanted[2] or size), size - 1)
        self._send(206, found.body[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{size}"})

    def _put(self, key: str, body: bytes) -> None:
        kept = {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith(_META) or name.lower() == "content-type"
        }
        with self.objects.lock:
            found = self.objects.by_key.get(key)
            expected = self.headers.get("If-Match")
            if expected is not None and found is None:
                raise _Refused(404, "NoSuchKey")
            if (found is not None and expected not in (None, found.etag)) or (
                found is not None and self.headers.get("If-None-Match") == "*"
            ):
                raise _Refused(412, "PreconditionFailed")
            etag = self.objects.put(key, body, kept)
        self._send(200, b"", {"ETag": etag})

    def _delete_many(self, bucket: str, body: bytes) -> None:
        with self.objects.lock:
            for element in fromstring(body).iter():  # the XML is that of our own client
                if element.tag.endswith("}Key") or element.tag == "Key":
                    self.objects.drop(f"{bucket}/{element.text}")
        self._send(200, b"<DeleteResult/>")

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        after = f"{bucket}/{query.get('start-after', [''])[0]}"
        most = int(query.get("max-keys", ["1000"])[0])
        cut = len(bucket) + 1
        with self.objects.lock:
            first = max(bisect_left(self.objects.keys, prefix), bisect_right(self.objects.keys, after))
            keys = [key for key in islice(self.objects.keys, first, first + most + 1) if key.startswith(prefix)]
            found = [(key[cut:], self.objects.by_key[key]) for key in keys[:most]]
        parts = ["<ListBucketResult>"]
        for key, one in found:
            modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.modified))
            parts.append(
                f"<Contents><Key>{quote(key)}</Key><LastModified>{modified}</LastModified>"
                f"<ETag>{escape(one.etag)}</ETag><Size>{len(one.body)}</Size></Contents>"
            )
        parts.append(f"<EncodingType>url</EncodingType><IsTruncated>{str(len(keys) > most).lower()}</IsTruncated>")
        self._send(200, "".join([*parts, "</ListBucketResult>"]).encode())

    def _send(self, status: int, body: bytes | None = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body is not None and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        answer = body if body and self.command != "HEAD" else b""
        # Noted before it is sent: what a client asks next has to begin later than this ended.
        method = "LIST" if "list-type=" in self.path else self.command
        path = unquote(urlsplit(self.path).path)
        self.requests.append(Request(self.began, time.perf_counter(), method, path, self.received, len(answer)))
        self.wfile.write(answer)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve(bucket: str, folder: Path, seconds: float) -> None:
    """Serve a copy of a directory as a bucket, and any other bucket, empty, until standard input ends.

    Prints the URL first, and for each line of standard input the requests since the line before, as JSON.
    """
    objects = Objects()
    objects.load(bucket, folder)
    requests: list[Request] = []
    handler = type("Handler", (_Handler,), {"objects": objects, "requests": requests, "delay": seconds})
    with _Server(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        for _ in sys.stdin:
            asked = json.dumps(requests)
            requests.clear()  # before whoever asked goes on to the next request
            print(asked, flush=True)
        server.shutdown()


class SlowS3:
    """A running server."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.url = process.read()

    def requests(self) -> list[Request]:
        """The requests since the last time that this was asked, while none is under way."""
        return [Request(*values) for values in json.loads(self._process.ask(""))]


@contextmanager
def slow_s3(bucket: str, folder: Path, seconds: float) -> Iterator[SlowS3]:
    """Run a server in a process of its own."""
    with child(__file__, str(folder), "--bucket", bucket, "--milliseconds", str(seconds * 1000)) as process:
        yield SlowS3(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what to serve a copy of")
    parser.add_argument("--bucket", default="chats")
    parser.add_argument("--milliseconds", type=float, default=20.0, help="how long each request waits")
    given = parser.parse_args()
    serve(given.bucket, given.folder, given.milliseconds / 1000)


if __name__ == "__main__":
    main()
