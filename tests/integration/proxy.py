"""A proxy on loopback between an S3 client and an S3 server, that does to requests what networks and servers do.

Law: it decides about each request once, by what the test says, and writes down what it received, what it passed on and
what the server said to that. It changes no request. What it makes up is what S3 or a network could have said.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

GIVEN_UP = 10.0
"""Seconds after which a stalled request is let go although its client still waits: a bound, not a promise."""


class Fault(Enum):
    """What may become of a request."""

    DROP_BEFORE = "connection dropped, not passed on"
    DROP_AFTER = "passed on, connection dropped before the answer"
    CUT = "passed on, answer cut"
    STALL_BEFORE = "stalled past the read timeout, not passed on"
    STALL_AFTER = "passed on, answer stalled past the read timeout"
    LATE = "connection dropped, passed on later"
    TWICE = "passed on twice, the second answer given"
    DENIED = "403 AccessDenied, not passed on"
    CONTENDED_BEFORE = "409 ConditionalRequestConflict, not passed on"
    CONTENDED_AFTER = "passed on, answered 409 ConditionalRequestConflict"
    ERROR_BEFORE = "500 InternalError, not passed on"
    ERROR_AFTER = "passed on, answered 500 InternalError"
    BUSY_BEFORE = "503 SlowDown, not passed on"
    BUSY_AFTER = "passed on, answered 503 SlowDown"


_PASSED_ON = {
    Fault.DROP_AFTER,
    Fault.CUT,
    Fault.STALL_AFTER,
    Fault.TWICE,
    Fault.CONTENDED_AFTER,
    Fault.ERROR_AFTER,
    Fault.BUSY_AFTER,
}
_REFUSALS = {
    Fault.DENIED: (403, "AccessDenied"),
    Fault.CONTENDED_BEFORE: (409, "ConditionalRequestConflict"),
    Fault.CONTENDED_AFTER: (409, "ConditionalRequestConflict"),
    Fault.ERROR_BEFORE: (500, "InternalError"),
    Fault.ERROR_AFTER: (500, "InternalError"),
    Fault.BUSY_BEFORE: (503, "SlowDown"),
    Fault.BUSY_AFTER: (503, "SlowDown"),
}


@dataclass(frozen=True)
class Request:
    """A request as the proxy received it. `key` is that of the object, or the prefix of a list, below the bucket."""

    number: int
    method: str
    key: str
    is_list: bool
    conditional: bool
    body: str
    """The SHA-256 of its body."""

    @property
    def kind(self) -> str:
        """The method, and what of an archive it is about."""
        what = next((kind for name, kind in _KINDS.items() if f"/{name}" in f"/{self.key}"), "many")
        return f"{'LIST' if self.is_list else self.method} {what}"


_KINDS = {
    "conversations/": "document",
    "index/log/": "intent",
    "index/segments/": "segment",
    "index/recent/": "recent",
    "index/manifest.json": "manifest",
    "s3conv.json": "descriptor",
}


@dataclass(frozen=True)
class Answered:
    """A request that was passed on, and the status that the server gave it."""

    request: Request
    status: int


Choose = Callable[[Request], Fault | None]


@dataclass
class Proxy:
    """A running proxy. `choose` decides about each request; it is called by many threads, one at a time."""

    upstream: str
    url: str = ""
    choose: Choose = lambda request: None
    received: list[Request] = field(default_factory=list)
    forwarded: list[Answered] = field(default_factory=list)
    counts: Counter[tuple[Fault, str]] = field(default_factory=Counter)
    """How often each fault met each kind of request."""
    met: int = 0
    """How many faults there were since the last reset."""
    _late: list[tuple[Request, _Message]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def reset(self, choose: Choose = lambda request: None) -> None:
        """Forget what was seen, and decide anew."""
        self.deliver()
        with self._lock:
            self.choose, self.met = choose, 0
            self.received.clear()
            self.forwarded.clear()

    def conditional_puts(self, *, applied: bool = False) -> list[Request]:
        """The conditional PUTs that were received; or those that the server applied."""
        if not applied:
            return [request for request in self.received if request.conditional]
        return [one.request for one in self.forwarded if one.request.conditional and one.status == 200]

    def deliver(self) -> None:
        """Pass on what is held back."""
        with self._lock:
            late, self._late = self._late, []
        for request, message in late:
            self._forward(request, message)

    def _receive(self, message: _Message) -> tuple[Request, Fault | None, bool]:
        """Note a request and decide. The last value: whether one that is held back is due."""
        with self._lock:
            request = message.request(len(self.received))
            self.received.append(request)
            fault = self.choose(request)
            if fault is not None:
                self.counts[fault, request.kind] += 1
                self.met += 1
            if fault is Fault.LATE:
                self._late.append((request, message))
            return request, fault, bool(self._late) and request.number % 7 == 0

    def _forward(self, request: Request, message: _Message) -> _Answer:
        """Ask the server, over a connection of its own."""
        upstream = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        try:
            connection.putrequest(message.method, message.target, skip_host=True, skip_accept_encoding=True)
            for name, value in message.headers:
                connection.putheader(name, value)
            connection.endheaders(message.body)
            response = connection.getresponse()
            answer = _Answer(response.status, response.reason, response.getheaders(), response.read())
        finally:
            connection.close()
        with self._lock:
            self.forwarded.append(Answered(request, answer.status))
        return answer


@dataclass(frozen=True)
class _Message:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def request(self, number: int) -> Request:
        parts = urlsplit(self.target)
        query = parse_qs(parts.query)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        names = {name.lower() for name, _ in self.headers}
        return Request(
            number,
            self.method,
            key or query.get("prefix", [""])[0],
            self.method == "GET" and bool(bucket) and not key,
            self.method == "PUT" and bool(names & {"if-match", "if-none-match"}),
            hashlib.sha256(self.body).hexdigest(),
        )


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


def _refusal(fault: Fault, message: _Message) -> _Answer:
    status, code = _REFUSALS[fault]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    return _Answer(status, code, [("Content-Type", "application/xml")], b"" if message.method == "HEAD" else body)


@contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    """Run a proxy to the server at this URL until the block ends; what it held back is passed on then."""
    proxy = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Small answers at once: the head and the body are two writes.
        wbufsize = -1
        disable_nagle_algorithm = True

        def serve(self) -> None:
            assert "Transfer-Encoding" not in self.headers
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            message = _Message(self.command, self.path, self.headers.items(), body)
            request, fault, due = proxy._receive(message)
            if due and fault is not Fault.LATE:
                proxy.deliver()
            answer: _Answer | None = None
            if fault is None or fault in _PASSED_ON:
                answer = proxy._forward(request, message)
            match fault:
                case None:
                    assert answer is not None
                    self.give(answer)
                case Fault.TWICE:
                    self.give(proxy._forward(request, message))
                case Fault.CUT:
                    assert answer is not None
                    self.cut(answer)
                case Fault.STALL_BEFORE | Fault.STALL_AFTER:
                    self.stall()
                case Fault.DROP_BEFORE | Fault.DROP_AFTER | Fault.LATE:
                    self.drop()
                case _:
                    self.give(_refusal(fault, message))

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = serve

        def head(self, answer: _Answer) -> None:
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            lengths = [value for name, value in answer.headers if name.lower() == "content-length"]
            if answer.status not in (204, 304):
                length = lengths[0] if self.command == "HEAD" and lengths else str(len(answer.body))
                self.send_header("Content-Length", length)
            self.end_headers()

        def give(self, answer: _Answer) -> None:
            with suppress(OSError):
                self.head(answer)
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                self.wfile.flush()

        def cut(self, answer: _Answer) -> None:
            """Half of the body; or, where there is none, half of the status line."""
            with suppress(OSError):
                if answer.body and self.command != "HEAD":
                    self.head(answer)
                    self.wfile.write(answer.body[: len(answer.body) // 2])
                else:
                    self.wfile.write(b"HTTP/1.")
                self.wfile.flush()
            self.drop()

        def stall(self) -> None:
            """Say nothing until the client gives up."""
            self.connection.settimeout(GIVEN_UP)
            with suppress(OSError):
                self.connection.recv(1)
            self.drop()

        def drop(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            return  # a client that went away

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        proxy.deliver()


def once(kind: str, fault: Fault, nth: int = 1) -> Choose:
    """That fault for the n-th request of one kind, and none for others."""
    kinds: list[str] = []

    def choose(request: Request) -> Fault | None:
        kinds.append(request.kind)
        return fault if request.kind == kind and kinds.count(kind) == nth else None

    return choose


def first_of_each(fault: Fault) -> Choose:
    """That fault for the first request of each kind."""
    kinds: set[str] = set()

    def choose(request: Request) -> Fault | None:
        if request.kind in kinds or not possible(fault, request):
            return None
        kinds.add(request.kind)
        return fault

    return choose


def each_of(requests: Sequence[Request]) -> Iterator[tuple[Request, int]]:
    """Requests, each with how many of its kind there were up to it."""
    kinds: Counter[str] = Counter()
    for request in requests:
        kinds[request.kind] += 1
        yield request, kinds[request.kind]


def always(kind: str, fault: Fault) -> Choose:
    """That fault for every request of one kind."""
    return lambda request: fault if request.kind == kind else None


def by_chance(rng: Random, chance: float, often: float, faults: Sequence[Fault]) -> Choose:
    """One of these faults, by chance, for any request that it can happen to; `often` for conditional PUTs."""

    def choose(request: Request) -> Fault | None:
        if rng.random() >= (often if request.conditional else chance):
            return None
        return rng.choice([fault for fault in faults if possible(fault, request)])

    return choose


def possible(fault: Fault, request: Request) -> bool:
    """Whether a store may do this to that request: 409 belongs to conditional writes."""
    return request.conditional or fault not in (Fault.CONTENDED_BEFORE, Fault.CONTENDED_AFTER)
