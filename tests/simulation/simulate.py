"""Simulate from the command line: `python -m tests.simulation.simulate --seeds 1000`, or `--seed 17` to see one.

`make simulate SEEDS=100000` runs long, on every core. What was run and found is in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.scenario import PROFILES, simulate

SHARE = 50
"""Seeds that a process simulates before it says what came of them."""


@dataclass
class Outcome:
    """What came of some seeds: what happened how often, and the first violation of each seed that has one."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violated: dict[int, str] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        self.seeds += other.seeds
        self.counts += other.counts
        self.violated |= other.violated


def simulate_some(first: int, seeds: int, profile: str | None = None) -> Outcome:
    """Simulate the seeds from `first` on."""
    outcome = Outcome()
    for seed in range(first, first + seeds):
        world, history = simulate(seed, profile)
        outcome.seeds += 1
        outcome.counts += world.counts
        if history.violations:
            outcome.violated[seed] = history.violations[0]
    return outcome


def simulate_many(first: int, seeds: int, profile: str | None = None) -> Iterator[Outcome]:
    """The same on all cores, a share at a time."""
    begins = range(first, first + seeds, SHARE)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(simulate_some, begin, min(SHARE, first + seeds - begin), profile) for begin in begins]
        for job in jobs:
            yield job.result()


def schedule(seed: int, profile: str | None = None) -> str:
    """What happened in a seed, line by line, and what it violated."""
    world, history = simulate(seed, profile)
    return "\n".join([*world.trace, *(history.violations or ["nothing was violated"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed: print its schedule and what was violated")
    parser.add_argument("--profile", choices=PROFILES, help="one kind of simulation; else the seed chooses")
    options = parser.parse_args()
    if options.seed is not None:
        shown = schedule(options.seed, options.profile)
        print(shown)
        return not shown.endswith("nothing was violated")
    total = Outcome()
    for outcome in simulate_many(options.first, options.seeds, options.profile):
        total.add(outcome)
        for seed, what in outcome.violated.items():
            print(f"seed {seed}: {what}")
        if sys.stderr.isatty():
            print(f"\r{total.seeds:,} of {options.seeds:,} seeds", end="", file=sys.stderr)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(total.counts.items())))
    print(f"{len(total.violated)} of {total.seeds:,} seeds violate something")
    if total.violated:
        seed = min(total.violated)
        print(f"the schedule of seed {seed} (again: python -m tests.simulation.simulate --seed {seed}):")
        print(schedule(seed, options.profile))
    return bool(total.violated)


if __name__ == "__main__":
    sys.exit(main())
