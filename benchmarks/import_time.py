"""What `import s3conv` costs beside `import boto3` alone, which every program that talks to S3 pays.

Each figure is the shortest of many fresh processes, taken in turns, so that the machine's drift meets all alike. Exits
1 if `import s3conv` takes more than 1.4 times as long as `import boto3`, or if both together do.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.measuring import in_fresh_process, print_machine, print_table

ROUNDS = 15
MOST = 1.4
STATEMENTS = ("import boto3", "import s3conv", "import boto3, s3conv")


def main() -> None:
    print_machine()
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(ROUNDS):
        for statement in STATEMENTS:
            code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            seconds[statement] += in_fresh_process("-c", code)
    alone = min(seconds["import boto3"])
    print_table(
        ("statement", "ms", "times import boto3"),
        [(name, f"{min(times) * 1000:.0f}", f"{min(times) / alone:.2f}") for name, times in seconds.items()],
    )
    sys.exit(any(min(times) > MOST * alone for times in seconds.values()))


if __name__ == "__main__":
    main()
