"""Nothing is lost in 2,000 seeded schedules of writers, readers, maintainers and faults; each rule is needed for it.

A failing seed prints its schedule; `python -m tests.simulation.simulate --seed N` replays it. `make simulate
SEEDS=100000` runs more. What was found is in docs/reliability.md.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.ablations import ALL
from tests.simulation.scenario import PROFILES, simulate
from tests.simulation.simulate import Outcome, schedule, simulate_many

SEEDS = 2_000

LEAST = {
    "crash before": 150,
    "crash after": 150,
    "lost request": 400,
    "lost response": 2_500,
    "late": 1_500,
    "arrived late": 2_000,
    "twice": 800,
    "409": 500,
    "500": 200,
    "500 applied": 180,
    "503": 350,
    "pause": 12_000,
    "jump": 8_000,
    "save acked": 15_000,
    "save conflict": 600,
    "save unknown": 250,
    "save refused": 1_000,
    "list": 4_000,
    "export": 1_400,
    "folded": 8_000,
    "dropped": 20,
    "collected": 4_000,
    "merge into mid": 800,
    "merge into base": 800,
    "merge lost": 80,
    "lost response settled": 500,
    "real conflict": 5_000,
    "restart": 1_000,
    "bump": 2_500,
    "confirmation": 12_000,
    "moved row": 6_000,
    "elided intent": 2_500,
    "edit of what was kept": 200,
    "dropped row of a deleted or moved one": 2_000,
}
"""How often at least each fault and each branch of the protocol was met: a simulation of nothing proves nothing."""


@pytest.mark.timeout(1200)
def test_nothing_is_lost_in_two_thousand_schedules() -> None:
    total = Outcome()
    for outcome in simulate_many(0, SEEDS):
        total.add(outcome)
    for seed in sorted(total.violated)[:1]:
        pytest.fail(f"{total.violated}; the schedule of seed {seed}:\n{schedule(seed)}")
    assert {what: total.counts[what] for what in LEAST if total.counts[what] < LEAST[what]} == {}


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
    "unknown_called_a_conflict": "bursts",
    "announced_too_late_for_nothing": "frozen",
    "loser_keeps_its_intents": "calm",
    "merged_by_node_id": "everything",
    "merge_raises_the_dead": "everything",
    "merge_raises_the_dead_beside_the_living": "everything",
    "deleted_by_deleting": "calm",
    "move_announced_in_one_place": "everything",
    "window_for_every_change": "everything",
    "window_without_end": "chats",
    "fold_within_the_window": "chats",
    "unconfirmed": "everything",
    "two_of_one_revision_believed": "two of each",
    "age_by_own_clock": "everything",
    "manifest_before_log": "everything",
    "rows_not_looked_up": "everything",
    "missing_is_nothing": "two of each",
    "export_believes_what_is_announced": "exports",
    "export_believes_the_activity_of_intents": "chats",
    "export_believes_the_index": "exports",
    "fold_believes_intents": "everything",
    "fold_deletes_first": "everything",
    "fold_drops_at_once": "two of each",
    "fold_without_cas": "mergers",
    "fold_reads_the_manifest_late": "batches",
    "no_moved_rows": "everything",
    "no_replaced_rows": "everything",
    "gone_rows_dropped_by_any_merge": "mergers",
    "gone_rows_dropped_at_once": "graves",
    "batch_goes_with_its_first": "batches",
    "order_by_time": "everything",
    "segment_names_are_used_again": "everything",
    "collect_at_once": "mergers",
    "recent_floor_stays": "everything",
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
