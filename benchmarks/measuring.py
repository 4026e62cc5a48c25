"""What the benchmarks share: a fresh process per measurement, the machine's name, and tables."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def in_fresh_process(script: str, *arguments: str) -> list[float]:
    """Run a script (or `-c` code) in a new Python, and read the numbers in its last line."""
    # With bytecode, as what is installed has it: else the time to compile would be measured, again in each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, script, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


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
