"""Memory does not grow with what is imported: streams made as they are read, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import io, json, sys, tracemalloc
from s3conv import Archive
from s3conv.exchange.importing import import_files

kind, megabytes, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
text = "words and more words " * 10_000
around = {"lines": ("", "\\n", ""), "list": ("[", ",", "]"), "object": ('{"v": 1, "data": [', ",", "]}")}
begin, between, end = around[kind]

class Made(io.RawIOBase):
    def __init__(self):
        self.made, self.left, self.number = 0, begin.encode(), 0
    def readable(self):
        return True
    def readinto(self, buffer):
        if not self.left and self.made < megabytes * 1_000_000:
            messages = [{"role": "user", "content": f"{self.number} {text}"}, {"role": "assistant", "content": None}]
            row = {"messages": messages}
            self.left = ((between if self.number else "") + json.dumps(row)).encode()
            self.number += 1
            self.made += len(self.left)
            if self.made >= megabytes * 1_000_000:
                self.left += end.encode()
        taken = min(len(self.left), len(buffer))
        buffer[:taken], self.left = self.left[:taken], self.left[taken:]
        return taken

tracemalloc.start()
with Archive.create(f"file://{folder}") as archive:
    stream = Made()
    report = import_files(archive, [io.BufferedReader(stream)])
assert (report.new, report.problems) == (stream.number, []), report
print(tracemalloc.get_traced_memory()[1])
"""


def peak(kind: str, megabytes: int, folder: Path) -> int:
    """The most memory, in bytes, of a process that imports a stream of so many megabytes."""
    command = [sys.executable, "-c", SCRIPT, kind, str(megabytes), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("kind", ["lines", "list", "object"])
def test_memory_does_not_grow_with_the_stream(kind: str, tmp_path: Path) -> None:
    # The smaller one is several chunks already, so that it holds as much at once as the larger.
    small, large = peak(kind, 40, tmp_path / "small"), peak(kind, 120, tmp_path / "large")
    assert large < 1.15 * small, (small, large)
