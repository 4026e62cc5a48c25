"""A read-only S3 server on loopback that does as little as it can, so that a client is what limits a measurement.

It holds a directory in memory and answers GET, of a whole object or of a range, and lists (version 2). It checks no
signature, knows no conditions, and reads of a request only its first line and its range. One process, one event loop:
some 10,000 requests a second. For what has to take time, see `slow_s3.py`.

Run by itself it serves a directory, for as long as its standard input stays open.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import child

_RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)
_DATE = formatdate(usegmt=True)


class Served:
    """The objects by path, `/bucket/key`, each with the head of its answer ready to be sent."""

    def __init__(self, bucket: str, folder: Path) -> None:
        self.bodies: dict[str, bytes] = {}
        self.answers: dict[str, bytes] = {}
        for path in folder.rglob("*"):
            key = path.relative_to(folder).as_posix()
            if path.is_file() and not key.startswith("."):
                body = path.read_bytes()
                name = f"/{bucket}/{quote(key)}"
                self.bodies[name] = body
                self.answers[name] = _head("200 OK", len(body), body) + body
        self.keys = sorted(map(unquote, self.bodies))

    def answer(self, request: bytes) -> bytes:
        """The answer to one request without a body."""
        target = request[4 : request.index(b" ", 4)].decode()
        path, _, query = target.partition("?")
        if "list-type" in query:
            return self._list(path.rstrip("/"), query)
        wanted = _RANGE.search(request)
        if wanted is not None and path in self.bodies:
            start, end, body = int(wanted[1]), int(wanted[2]), self.bodies[path]
            part, more = body[start : end + 1], f"Content-Range: bytes {start}-{end}/{len(body)}\r\n"
            return _head("206 Partial Content", len(part), body, more) + part
        return self.answers.get(path) or _head("404 Not Found", 0, b"")

    def _list(self, bucket: str, query: str) -> bytes:
        said = parse_qs(query)
        prefix, after = (f"{bucket}/{said.get(name, [''])[0]}" for name in ("prefix", "start-after"))
        first = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after))
        page = [key for key in self.keys[first : first + 1001] if key.startswith(prefix)]
        listed = "".join(
            f"<Contents><Key>{quote(key[len(bucket) + 1 :])}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>{len(self.bodies.get(quote(key), b''))}</Size></Contents>"
            for key in page[:1000]
        )
        more = str(len(page) > 1000).lower()
        text = f"<ListBucketResult>{listed}<EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>"
        body = f"{text}</ListBucketResult>".encode()
        return _head("200 OK", len(body), body) + body


def _head(status: str, length: int, body: bytes, more: str = "") -> bytes:
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return (
        f'HTTP/1.1 {status}\r\nDate: {_DATE}\r\nLast-Modified: {_DATE}\r\nETag: "{etag}"\r\n'
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, served: Served) -> None:
        self._served = served
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            request, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._transport.write(self._served.answer(request))


async def serve(bucket: str, folder: Path) -> None:
    """Serve a copy of a directory as a bucket, until standard input ends; print the URL first."""
    served = Served(bucket, folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(served), "127.0.0.1", 0, backlog=128)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def fast_s3(bucket: str, folder: Path) -> Iterator[str]:
    """Run a server in a process of its own; gives its URL."""
    with child(__file__, str(folder), "--bucket", bucket) as server:
        yield server.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what to serve a copy of")
    parser.add_argument("--bucket", default="chats")
    given = parser.parse_args()
    asyncio.run(serve(given.bucket, given.folder))


if __name__ == "__main__":
    main()
