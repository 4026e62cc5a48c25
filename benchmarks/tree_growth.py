"""What a linear chat costs as it grows: stored bytes, seconds to save and to load, peak memory.

Run it without arguments; each size runs in a fresh process of its own. Exits 1 if from 1,000 to 10,000 messages any of
them grows more than 15-fold (a node id spells out its path, so that whatever stores ids grows 100-fold).
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from s3conv import Archive, ConversationState
from s3conv.model.tree import Tree

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.measuring import in_fresh_process, peak_memory, print_machine, print_table

SIZES = (100, 1_000, 10_000)
MOST = 15.0


def chat(messages: int) -> ConversationState:
    """A linear chat of messages of 100 characters, each different, a few seconds apart."""
    state = ConversationState.start("linear", metadata={"user_id": "alice"})
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    for number in range(messages):
        words = f"message {number} says {number * 7919 % 100_003} and {number * 104_729 % 999_983} "
        role = "assistant" if number % 2 else "user"
        state.add_message(role, (words * 4)[:100], timestamp=begin + timedelta(seconds=number * 7.25))
    return state


def best_of(times: int, seconds: list[float]) -> float:
    """The shortest of so many repeats."""
    assert len(seconds) == times
    return min(seconds)


def measure(messages: int) -> None:
    """Print stored bytes, seconds to save, seconds to load, peak KiB above that of an empty process."""
    state = chat(1)
    with tempfile.TemporaryDirectory() as folder, Archive.create(f"file://{folder}/archive") as archive:
        archive.save(state)
        archive.load("linear")
        archive.delete("linear")
        before = peak_memory()
        state = chat(messages)
        size = archive.save(state).size
        loaded = archive.load("linear")
        assert loaded == state
        peak = peak_memory() - before
        saves, loads = [], []
        for _ in range(5):
            started = time.perf_counter()
            archive.save(state)
            saves.append(time.perf_counter() - started)
            started = time.perf_counter()
            archive.load("linear")
            loads.append(time.perf_counter() - started)
        assert isinstance(state.message_tree, Tree)
        print(size, best_of(5, saves), best_of(5, loads), max(peak, 1))


def main() -> None:
    print_machine()
    rows = {size: in_fresh_process(__file__, str(size)) for size in SIZES}
    print_table(
        ("messages", "stored bytes", "save s", "load s", "peak KiB over start"),
        [
            (f"{size:,}", f"{row[0]:,.0f}", f"{row[1]:.4f}", f"{row[2]:.4f}", f"{row[3]:,.0f}")
            for size, row in rows.items()
        ],
    )
    growth = [large / small for large, small in zip(rows[10_000], rows[1_000], strict=True)]
    print(
        f"\n1,000 to 10,000 (at most {MOST:g}): "
        + ", ".join(
            f"{name} {factor:.1f}" for name, factor in zip(("bytes", "save", "load", "memory"), growth, strict=True)
        )
    )
    sys.exit(any(factor > MOST for factor in growth))


if __name__ == "__main__":
    measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
