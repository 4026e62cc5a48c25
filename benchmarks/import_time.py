"""What `import s3conv` and the chat function of infra/ cost beside `import boto3` alone, which all that talk to S3 pay.

Each figure is of many fresh processes, taken in turns, so that the machine's drift meets all alike. Time is that of the
statement, and its processor time, which others on the machine stretch less; memory is the most that the process has had
by then (resident). The chat function makes its S3 client when it is imported, as a function should; what that costs by
itself is beside it.

Exits 1 if `import s3conv` takes more than 1.4 times as long as `import boto3`, or if both together do, by the shortest
times: on a busy machine that says little.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.measuring import in_fresh_process, print_machine, print_table

ROUNDS = 15
MOST = 1.4
CLIENT = "boto3.client('s3', region_name='us-east-1')"
FUNCTIONS = Path(__file__).parents[1] / "infra" / "functions"
LIMITED = ("import s3conv", "import boto3, s3conv")
STATEMENTS = {
    "nothing": "pass",
    "import boto3": "import boto3",
    **{statement: statement for statement in LIMITED},
    "import boto3, and a client": f"import boto3; {CLIENT}",
    "the chat function": "import chat",
}


def code_of(statement: str) -> str:
    """Code that prints the milliseconds and the processor's milliseconds of a statement, and KiB of memory."""
    return (
        f"import sys, time; sys.path.insert(0, {str(FUNCTIONS)!r})\n"
        f"wall, cpu = time.perf_counter(), time.process_time(); {statement}\n"
        "wall, cpu = time.perf_counter() - wall, time.process_time() - cpu\n"
        # As `peak_memory` does, whose module would be part of it.
        "peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]\n"
        "print(wall * 1000, cpu * 1000, peak)"
    )


def main() -> None:
    print_machine()
    # What the function finds in its environment; no request is made.
    os.environ |= {"S3CONV_URL": "s3://chats/archive", "AWS_DEFAULT_REGION": "us-east-1"}
    measured: dict[str, list[list[float]]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            measured[name].append(in_fresh_process("-c", code_of(statement)))
    shortest = {name: min(wall for wall, _, _ in values) for name, values in measured.items()}
    alone = shortest["import boto3"]
    rows = []
    for name, values in measured.items():
        wall, processor, memory = map(median, zip(*values, strict=True))
        times = f"{shortest[name] / alone:.2f}"
        rows.append((name, f"{shortest[name]:.0f}", times, f"{wall:.0f}", f"{processor:.0f}", f"{memory / 1024:.1f}"))
    head = ("", "ms, shortest", "times import boto3", "ms, median", "of the processor", "peak MB")
    print_table(head, rows)
    sys.exit(any(shortest[name] > MOST * alone for name in LIMITED))


if __name__ == "__main__":
    main()
