"""All actors at once through a proxy that does every harm by chance; when it stops, all that was promised holds."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import boto3
import pytest

from s3conv.store import open_store
from tests.integration.crowd import Crowd
from tests.integration.proxy import Fault, Proxy, by_chance
from tests.integration.test_scenarios import credentials_of

TURNS = 12
CHANCE, OFTEN = 0.06, 0.3
READ_TIMEOUT = 0.5
"""Seconds. An answer that takes longer is one more fault."""

FAULTS = [fault for fault in Fault if fault is not Fault.CONTENDED_AFTER]
"""All that S3 and networks do. A store that says 409 (not written) of what it wrote is not to be had the truth from:
what a save makes of one such answer is in `test_faults.py`."""

_log = logging.getLogger(__name__)  # shown by `pytest -rP --log-level=INFO`


@pytest.mark.parametrize("kind", ["s3-boto3", "s3-aioboto3"])
def test_a_storm(
    kind: str, tmp_path: Path, proxy: Proxy, s3_session: boto3.Session, s3_client: Any, s3_bucket: str
) -> None:
    if kind == "s3-aioboto3":
        pytest.importorskip("aioboto3", reason="aioboto3 is not installed")
    url = f"s3://{s3_bucket}/archive"
    seed = SystemRandom().getrandbits(32)
    # Rare ones wait for a time-out each, several times over where the SDK tries again.
    weighted = [fault for fault in FAULTS for _ in range(1 if "STALL" in fault.name else 4)]
    proxy.counts.clear()
    proxy.reset(by_chance(Random(seed), CHANCE, OFTEN, weighted))
    crowd = Crowd(
        url,
        proxy.url,
        credentials_of(s3_session),
        kind == "s3-aioboto3",
        tmp_path,
        TURNS,
        faulty=True,
        read_timeout=READ_TIMEOUT,
    )
    received: Counter[str] = Counter()
    twice: list[str] = []

    def calm() -> None:
        received.update(request.kind for request in proxy.received)
        proxy.deliver()
        # A body with its write id is that of one write: whatever became of its requests, it was made once at most.
        applied = Counter((request.key, request.body) for request in proxy.conditional_puts(applied=True))
        twice.extend(f"{key} {body}" for (key, body), times in applied.items() if times > 1)
        proxy.reset()

    crowd.run(open_store(url, client=s3_client), calm)
    met = Counter({fault.value: 0 for fault in FAULTS})
    for (fault, _), times in proxy.counts.items():
        met[fault.value] += times
    _log.info(f"seed of the faults {seed}: {dict(met)} of {sum(received.values())} requests: {dict(received)}")
    assert not twice, f"seed of the faults {seed}"
    assert sum(met.values()) > 30, met
