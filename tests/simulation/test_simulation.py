"""Nothing is lost in 2,000 seeded schedules of writers, readers, maintainers, faults; and each rule is needed for it.

A failing seed prints what was violated; `python -m tests.simulation.simulate --seed N` replays it and prints its
schedule. `make simulate SEEDS=100000` runs more. What was found is in docs/reliability.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.ablations import ALL
from tests.simulation.scenario import PROFILES, simulate

SEEDS = 2_000

LEAST = {
    "crash before": 300,
    "crash after": 300,
    "lost request": 500,
    "lost response": 1_000,
    "late": 500,
    "arrived late": 500,
    "twice": 500,
    "409": 500,
    "500": 200,
    "500 applied": 200,
    "503": 300,
    "pause": 2_000,
    "jump": 5_000,
    "save acked": 10_000,
    "save conflict": 300,
    "save unknown": 100,
    "save refused": 300,
    "list": 3_000,
    "folded": 5_000,
    "dropped": 20,
    "collected": 500,
    "merge into mid": 500,
    "merge into base": 500,
    "merge lost": 20,
    "lost response settled": 300,
    "real conflict": 1_000,
    "restart": 100,
    "bump": 100,
    "confirmation": 5_000,
    "moved row": 1_000,
    "elided intent": 1_000,
    "dropped row of a deleted or moved one": 100,
}
"""How often at least each fault and each branch of the protocol was met: a simulation of nothing proves nothing."""


def some(first: int) -> tuple[Counter[str], list[str]]:
    """Fifty seeds, in a process of their own."""
    counts: Counter[str] = Counter()
    violated = []
    for seed in range(first, first + 50):
        world, history = simulate(seed)
        counts += world.counts
        violated += [f"seed {seed}: {what}" for what in history.violations[:1]]
    return counts, violated


@pytest.mark.timeout(1200)
def test_nothing_is_lost_in_two_thousand_schedules() -> None:
    counts: Counter[str] = Counter()
    violated: list[str] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for some_counts, some_violated in pool.map(some, range(0, SEEDS, 50)):
            counts += some_counts
            violated += some_violated
    assert violated == []
    assert {what: counts[what] for what in LEAST if counts[what] < LEAST[what]} == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_replays(profile: str) -> None:
    world, _ = simulate(7, profile)
    again, _ = simulate(7, profile)
    assert world.trace == again.trace


def test_a_seed_replays_in_another_process() -> None:
    command = [sys.executable, "-m", "tests.simulation.simulate", "--seed", "11"]
    outputs = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "nothing was violated" in outputs.pop()


NOTICED_BY = {
    "intent_after_document": "everything",
    "no_lineage": "everything",
    "lineage_of_the_last_write_only": "everything",
    "full_lineage_is_certain": "bursts",
    "unconditional_put": "everything",
    "conflict_409": "a slow store",
    "never_announced_again": "frozen",
    "new_write_id_when_sent_again": "everything",
    "tombstone_without_lineage": "echoes",
    "move_announced_in_one_place": "everything",
    "window_for_every_change": "everything",
    "window_without_end": "chats",
    "fold_within_the_window": "chats",
    "unconfirmed": "everything",
    "manifest_before_log": "everything",
    "rows_not_looked_up": "everything",
    "missing_is_nothing": "two of each",
    "fold_believes_intents": "everything",
    "fold_deletes_first": "everything",
    "fold_drops_at_once": "two of each",
    "fold_without_cas": "mergers",
    "fold_reads_the_manifest_late": "mergers",
    "no_moved_rows": "everything",
    "gone_rows_dropped_by_any_merge": "mergers",
    "gone_rows_dropped_at_once": "echoes",
    "collect_without_bump": "mergers",
    "late_merge": "frozen",
    "merge_over_merge": "mergers",
    "recent_keeps_what_was_folded": "echoes",
}
"""The rules of the protocol, and the kind of schedule in which it is soonest noticed that one is missing."""


def test_all_rules_are_tried() -> None:
    assert NOTICED_BY.keys() == ALL.keys()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", NOTICED_BY)
def test_the_simulation_notices_a_missing_rule(rule: str) -> None:
    for seed in range(600):
        with ALL[rule]():
            _, history = simulate(seed, NOTICED_BY[rule])
        if history.violations:
            return
    pytest.fail(f"600 schedules without the rule {rule!r} violate nothing")
