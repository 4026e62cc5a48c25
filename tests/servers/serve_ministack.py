"""Serves S3, or the services named as arguments, by MiniStack, in memory and on loopback, for as long as its standard
input stays open.

Law: it is run by the Python of MiniStack's own environment (`.venv-ministack`), imports nothing of s3conv, and prints
one line: the server's URL. The port is bound before MiniStack is told of it, so that nobody else can take it meanwhile;
connections wait in the socket's queue until it is ready. Standard input is a pipe from whoever started it: however that
process ends, the pipe ends with it, and so does the server.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from threading import Thread


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listening.getsockname()[1]
    # MiniStack reads these when it is imported. It is to serve nothing else.
    os.environ |= {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": ",".join(sys.argv[1:]) or "s3",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "ERROR",
    }
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.keep_alive_timeout = 600.0  # a client's idle connection is not to be cut under its next request
    config.loglevel = "ERROR"
    Thread(target=_end_with_input, daemon=True).start()
    os.write(1, f"http://127.0.0.1:{port}\n".encode())
    os.dup2(2, 1)  # nothing else goes where the URL went
    asyncio.run(serve(app, config))


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
