"""Repairs and verifies among writers, readers, folders, mergers and collectors, with faults.

Nothing is lost by the one, and nothing is reported by the other that is not so.

A failing seed prints what was violated; `simulate_repairs(seed)` replays it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any
from unittest import mock

import pytest

from s3conv.bridge import run_sync
from s3conv.core import maintaining, repairing, segments, verifying
from s3conv.core.comparing import Finding
from s3conv.core.inspecting import manifest_as_it_is
from s3conv.core.log import OvertakenError
from s3conv.core.window import MARGIN
from s3conv.errors import IndexDamagedError, UnavailableError
from s3conv.format.keys import MANIFEST
from s3conv.format.manifest import Manifest
from tests.simulation import scenario
from tests.simulation.history import History
from tests.simulation.scenario import DAY, PROFILES, STEPS, WINDOW, Actor, Profile, actor, scaled
from tests.simulation.world import NO_FAULTS, Request, World

SEEDS = 200

Damage = Callable[[World], None]


async def repairer(me: Actor, profile: Profile) -> None:
    """Rebuilds the index again and again, whether it needs it or not."""
    rng = me.world.rng
    for _ in range(rng.randint(1, 4)):
        await me.context.runner.sleep(rng.uniform(0, 60))
        try:
            await repairing.rebuild(me.context, (), lambda share: None)
            me.world.counts["repair"] += 1
        except UnavailableError:
            me.world.counts["repair unavailable"] += 1


async def verifier(me: Actor, profile: Profile) -> None:
    """Compares while others write. Whatever it reports is a violation."""
    rng = me.world.rng
    for _ in range(rng.randint(1, 3)):
        await me.context.runner.sleep(rng.uniform(0, 60))
        try:
            found = await verifying.verify(me.context, False, None)
        except UnavailableError:
            me.world.counts["verify unavailable"] += 1
            continue
        me.world.counts["verify"] += 1
        me.world.counts["changing"] += found.changing
        _check_reported(me.history, found.differences, "while others wrote")


def _check_reported(history: History, differences: list[Any], when: str) -> None:
    for one in differences:
        if one.conversation_id is None or not history.late(one.conversation_id):
            history.violation(f"verify reports {when}: {one}")


async def maintainer(me: Actor, profile: Profile) -> None:
    """As the scenario's, but for that it may meet a damaged index."""
    rng = me.world.rng
    for _ in range(rng.randint(*profile.turns)):
        await me.context.runner.sleep(rng.uniform(0, 30))
        try:
            await scenario._maintain_somehow(me)
        except UnavailableError:
            me.world.counts["maintenance unavailable"] += 1
        except (IndexDamagedError, OvertakenError):
            me.world.counts["maintenance met damage"] += 1


def lose_manifest(world: World) -> None:
    run_sync(world.inner.delete([MANIFEST]))


def cut_manifest(world: World) -> None:
    found = run_sync(world.inner.get(MANIFEST))
    run_sync(world.inner.put(MANIFEST, found.body[:-5] if found else b"{}"))


def empty_manifest(world: World) -> None:
    run_sync(world.inner.put(MANIFEST, Manifest(generation=0, nonce="another").encode()))


def lose_segment(world: World) -> None:
    for key in [key for key in world.inner._space.keys if key.startswith("index/segments/")][-1:]:
        run_sync(world.inner.delete([key]))


DAMAGES: tuple[Damage, ...] = (lose_manifest, cut_manifest, empty_manifest, lose_segment)


def simulate_repairs(seed: int, damaged: bool = False) -> tuple[World, History]:
    """One seed. With `damaged` something of the index is lost now and then; then nobody reads until the end."""
    world = World(seed)
    history = History(world, world.rng.choice(list(PROFILES)))

    def applied(request: Request, answer: Any) -> None:
        with contextlib.suppress(IndexDamagedError, AssertionError) if damaged else contextlib.nullcontext():
            history.applied(request, answer)

    world.on_applied = applied
    with (
        scaled(world, PROFILES[history.profile]),
        mock.patch.object(repairing, "SPILL_ROWS", 2),
        mock.patch.object(verifying, "PART_ROWS", 400),
    ):
        _simulate(world, history, damaged)
    if damaged:  # what the damage puts in the place of a manifest is not what was there before
        of_damage = ("the manifest names", "recent goes back")
        history.violations = [one for one in history.violations if not one.startswith(of_damage)]
    return world, history


def _simulate(world: World, history: History, damaged: bool) -> None:
    rng = world.rng
    profile = PROFILES[history.profile]
    history.ids = scenario.IDS[: profile.ids]
    scenario.prepare(world, history)
    cast: list[tuple[str, Callable[[Actor, Profile], Coroutine[Any, Any, None]], tuple[int, int]]] = [
        ("w", scenario.writer, profile.writers),
        ("m", maintainer, profile.maintainers),
        ("x", repairer, (1, 2)),
    ]
    if not damaged:
        cast += [("r", scenario.reader, profile.readers), ("v", verifier, (1, 2))]
    for kind, script, few in cast:
        for number in range(rng.randint(*few)):
            me = actor(world, history, f"{kind}{number}", rng.choice(profile.windows))
            world.spawn(me.client, scenario._watched(history, me, script(me, profile)))
    world.faults, world.pauses, world.arrivals = profile.faults, profile.pauses, profile.arrivals
    for _ in range(STEPS):
        if not world.step():
            break
        if rng.random() < profile.jump:
            world.jump(rng.choice(profile.jumps))
        if damaged and rng.random() < 0.004:
            damage = rng.choice(DAMAGES)
            damage(world)
            world.note(f"-- {damage.__name__}")
            world.counts[damage.__name__] += 1
    else:
        raise AssertionError(f"no end after {STEPS} steps")
    world.faults = NO_FAULTS
    history.check_calls()
    world.jump(WINDOW + MARGIN + 1)
    if damaged:
        for _ in range(2):  # what was lost while one repaired is for the next
            scenario._alone(world, history, lambda me: verifying.verify(me.context, True, None))
    found = scenario._alone(world, history, lambda me: verifying.verify(me.context, False, None))
    _check_reported(history, found.differences if found else [], "when all was done")
    scenario._check_index(world, history, "after repairs")
    world.jump(DAY + 4000)
    scenario._alone(world, history, lambda me: maintaining.maintain(me.context, me.cache))
    scenario._check_index(world, history, "after maintenance")
    found = scenario._alone(world, history, lambda me: verifying.verify(me.context, False, None))
    _check_reported(history, found.differences if found else [], "after maintenance")


LEAST = {"repair": 300, "verify": 200, "save acked": 1_000, "list": 300, "folded": 500, "merge into base": 50}
LEAST_DAMAGED = {"repair": 250, "lose_manifest": 50, "cut_manifest": 50, "empty_manifest": 50, "lose_segment": 50}


def some(first: int, damaged: bool) -> tuple[Counter[str], list[str]]:
    """Twenty seeds, in a process of their own."""
    counts: Counter[str] = Counter()
    violated = []
    for seed in range(first, first + 20):
        world, history = simulate_repairs(seed, damaged)
        counts += world.counts
        violated += [f"seed {seed}: {what}" for what in history.violations[:1]]
    return counts, violated


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("damaged", "least"), [(False, LEAST), (True, LEAST_DAMAGED)], ids=["sound", "damaged"])
def test_nothing_is_lost_by_repairs(damaged: bool, least: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    violated: list[str] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for some_counts, some_violated in pool.map(partial(some, damaged=damaged), range(0, SEEDS, 20)):
            counts += some_counts
            violated += some_violated
    assert violated == []
    assert {what: counts[what] for what in least if counts[what] < least[what]} == {}


def believe_the_scan() -> Any:
    """Where documents and index differ, take what the documents said when they were scanned."""
    return mock.patch.object(repairing, "_last_word", lambda new, old, answer, key: new)


def swap_anyhow() -> Any:
    """Replace whatever manifest is there, not the one that the rows were compared with."""

    async def swap(context: Any, etag: str | None, manifest: Manifest) -> bool:
        now = await manifest_as_it_is(context)
        return await segments.swap_manifest(context, now.etag, manifest)

    return mock.patch.object(repairing, "swap_manifest", swap)


def report_at_once() -> Any:
    """Report what was found by the first look."""

    async def first(context: Any, doubts: Any, partition_by: Any) -> Any:
        for one in doubts:
            yield one, [Finding("wrong-row", one, "found by the first look", ("", "", one))]

    return mock.patch.object(verifying, "_settled", first)


RULES: dict[str, Callable[[], Any]] = {
    "the document has the last word": believe_the_scan,
    "a swap names the manifest that was compared": swap_anyhow,
    "a difference is looked at again": report_at_once,
}
"""The rules of verify and repair, switched off."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", RULES)
def test_the_simulation_notices_a_missing_rule(rule: str) -> None:
    for seed in range(400):
        with RULES[rule]():
            _, history = simulate_repairs(seed)
        if history.violations:
            return
    pytest.fail(f"400 schedules without the rule that {rule} violate nothing")
