"""The `s3conv` command.

Law: this package is the only place that reads the environment or prints. Results go to stdout; problems, progress and
hints to stderr. It exits with 0 if all went well, 1 if something failed, 2 if it was called wrongly, and shows no
traceback for what is not a fault of s3conv itself.
"""

from __future__ import annotations

import os
import sys

from s3conv.errors import StorageError


def main() -> None:
    """Run the command line; never returns."""
    try:
        from s3conv.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("s3conv: the command line needs typer and rich: from a checkout, pip install '.[cli]'")
    from s3conv.cli.output import complain

    for stream in (sys.stdout, sys.stderr):
        # A console that lacks a character shows its number instead of ending the program.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIOWrapper, but for a test's
    try:
        code = _run(app)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Without this, Python would complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except StorageError as error:
        complain(str(error))
        code = 1
    except OSError as error:
        # One that names no file comes of printing: what else is written or read has a name.
        complain(f"{error.filename or 'stdout'}: {error.strerror or error}")
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run(app: object) -> int:
    from typer import Typer

    assert isinstance(app, Typer)
    try:
        app(prog_name="s3conv")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0
