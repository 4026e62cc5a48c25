"""An HTTP server on loopback that answers as it is told to, and remembers what it was sent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass
class Answer:
    """What to say. `cut` bytes of the body are promised and not sent; `drop` closes the connection without a word;
    `hang` says nothing until the server is stopped, and `dribble` sends 64 KiB of the body fifty times a second."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    drop: bool = False
    hang: bool = False
    dribble: bool = False


def error(status: int, code: str, message: str = "so it is") -> Answer:
    """An answer as S3 refuses."""
    xml = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, xml.encode(), {"Content-Type": "application/xml"})


@dataclass
class FaultyServer:
    """`respond` decides by method, path and the number of requests before this one."""

    url: str = ""
    respond: Callable[[str, str, int], Answer] = lambda method, path, number: Answer()
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    """Where each of the requests came from: one for each connection."""

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]


@contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """Run one until the block ends."""
    told = FaultyServer()
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            number = len(told.requests)
            told.requests.append((self.command, self.path, dict(self.headers)))
            told.ports.append(self.client_address[1])
            answer = told.respond(self.command, self.path, number)
            if answer.hang:
                over.wait()
                return
            if not answer.drop:
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 304:
                    self.send_header("Content-Length", str(len(answer.body) + answer.cut))
                self.end_headers()
                if answer.dribble:
                    self.dribble(answer.body)
                elif self.command != "HEAD":
                    self.wfile.write(answer.body)
            if answer.drop or answer.cut:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

        def dribble(self, body: bytes) -> None:
            with suppress(OSError):  # whoever asked has gone
                for begin in range(0, len(body), 1 << 16):
                    if over.wait(0.02):
                        return
                    self.wfile.write(body[begin : begin + (1 << 16)])

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
