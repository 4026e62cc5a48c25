"""What the benchmarks share: processes of their own to measure in, the machine's name, and tables."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Child:
    """A Python process of its own that answers by lines; it ends with its standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout

    def ask(self, line: str) -> str:
        """Send a line and return the one that it answers."""
        self._to.write(f"{line}\n")
        self._to.flush()
        return self.read()

    def read(self) -> str:
        """The next line that it says."""
        line = self._from.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended before it had answered; what it said is above")
        return line.strip()

    def end(self) -> None:
        """Let it end."""
        self._to.close()


@contextmanager
def child(script: str, *arguments: str) -> Iterator[Child]:
    """Run a script in a process of its own, as its work must not be timed with ours, until the block ends."""
    command = [sys.executable, script, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_with_bytecode()
    ) as process:
        running = Child(process)
        try:
            yield running
        finally:
            running.end()


def in_fresh_process(script: str, *arguments: str) -> list[float]:
    """Run a script (or `-c` code) in a new Python, and read the numbers in its last line."""
    done = subprocess.run(
        [sys.executable, script, *arguments], check=True, capture_output=True, text=True, env=_with_bytecode()
    )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def _with_bytecode() -> dict[str, str]:
    # As what is installed has it: else the time to compile would be measured, again in each process.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def peak_memory() -> int:
    """The most memory that this process has had, in KiB (Linux; resident set size)."""
    # Not `getrusage`: that of a child begins with what its parent had.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def print_machine() -> None:
    """Say on what the figures were measured."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    lines = [" | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in texts]
    lines.insert(1, " | ".join("-" * (width - 1) + ":" for width in widths))
    print("\n".join(f"| {line} |" for line in lines))
