"""Simulate from the command line: `python -m tests.simulation.simulate --seeds 1000`, or `--seed 17` to see one."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.simulation.scenario import simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed: print its schedule and what was violated")
    options = parser.parse_args()
    if options.seed is not None:
        world, history = simulate(options.seed)
        print("\n".join(world.trace))
        print("\n".join(history.violations) or "nothing was violated")
        return bool(history.violations)
    counts: Counter[str] = Counter()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        world, history = simulate(seed)
        counts += world.counts
        if history.violations:
            failed += 1
            print(f"seed {seed}: {history.violations[0]} ({len(history.violations)} violations)")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    print(f"{failed} of {options.seeds} seeds violate something")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
