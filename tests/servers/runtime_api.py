"""Lambda's Runtime API on loopback, for one process that runs a function: it asks here for invocations, and answers.

    GET  /2018-06-01/runtime/invocation/next            waits for an invocation, as long as it takes
    POST /2018-06-01/runtime/invocation/{id}/response
    POST /2018-06-01/runtime/invocation/{id}/error
    POST /2018-06-01/runtime/init/error

Law: standard library only; it knows neither processes nor what is invoked. Whoever opens it gives invocations and takes
answers. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Protocol

_ROOT = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class Invocation:
    """One delivery of an event. A repeat has the same request id."""

    request_id: str
    event: bytes
    seconds: float


class Platform(Protocol):
    """Whom the process behind a Runtime API belongs to. Called by threads of the server."""

    def next(self) -> Invocation | None:
        """The next invocation, when there is one; None: never again."""
        ...

    def answered(self, request_id: str, body: bytes) -> None:
        """The function has answered."""
        ...

    def failed(self, what: str, body: bytes) -> None:
        """The function has raised, or could not be imported."""
        ...


@contextmanager
def runtime_api(platform: Platform) -> Iterator[str]:
    """Serve for as long as the context lasts; gives host and port, for AWS_LAMBDA_RUNTIME_API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            invocation = platform.next() if self.path == f"{_ROOT}invocation/next" else None
            if invocation is None:
                self._send(410, b"")
                return
            deadline = int((time.time() + invocation.seconds) * 1000)
            headers = {
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(deadline),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:111122223333:function:chat",
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000",
                "Content-Type": "application/json",
            }
            self._send(200, invocation.event, headers)

        def do_POST(self) -> None:
            body = self._body()
            match self.path.removeprefix(_ROOT).split("/"):
                case ["invocation", request_id, "response"]:
                    platform.answered(request_id, body)
                case _:
                    platform.failed(self.path, body)
            self._send(202, b'{"status":"OK"}')

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while length := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # the process was killed; its platform knows

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a connection that broke: the process was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
