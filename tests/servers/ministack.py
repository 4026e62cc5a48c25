"""MiniStack as a child of the process that wants an S3 server on loopback, or more of AWS.

Law: it lives in an environment of its own, because it pins botocore, and is started from nowhere else: where that
environment is missing, the error says how to make it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECT = Path(__file__).parents[2]
PYTHON = PROJECT / ".venv-ministack" / "bin" / "python"


@contextmanager
def ministack(*services: str, authorize: bool = False) -> Iterator[str]:
    """Serve S3, or the `services` that are named, for as long as the context lasts; gives the URL.

    It holds everything in memory, and ends with this process, also if that is killed. It takes any credentials; with
    `authorize` only those that it has given out itself, for what their policies allow, and those of its root, which are
    "test" and "test".

    Raises:
        RuntimeError: its environment was not made, or it did not start; says why.
    """
    if not PYTHON.exists():
        raise RuntimeError(
            "the tests need MiniStack, an S3 server, and its environment .venv-ministack is not there: run `make test` "
            "once, or `make .venv-ministack/.installed`"
        )
    # -I: neither this folder, where a file has its package's name, nor what the environment says is imported from.
    command = [str(PYTHON), "-I", "-B", str(Path(__file__).with_name("serve_ministack.py")), *services]
    with TemporaryDirectory() as folder, (Path(folder) / "said").open("w+b") as said:
        environment = {"TMPDIR": folder, "AUTH": str(authorize).lower()}
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment)
        with server:
            assert server.stdout is not None
            url = server.stdout.readline().decode().strip()
            try:
                if not url:
                    raise RuntimeError(f"MiniStack did not start: {(Path(folder) / 'said').read_text()}")
                yield url
            finally:
                server.kill()
