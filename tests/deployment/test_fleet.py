"""The chat function in Lambda's own client for Python: many processes, killed at random, and requests that come again.

200 requests to 20 conversations over 16 processes, on S3. Some are delivered twice at once, some again after they were
answered; twelve processes are killed, as they take a request, at work, or when they answer. Afterwards every message is
there, once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random, SystemRandom

import boto3
import pytest

from infra import build
from s3conv import Archive
from s3conv.store import open_store
from tenants import Tenant
from tests.deployment.fleet import Death, Delivery, Fleet, environment_of
from tests.deployment.package import RUNTIME
from tests.functions.calls import ALICE, conversation, event, says
from tests.servers.place import Place

PROCESSES, REQUESTS, CONVERSATIONS = 16, 200, 20
TWICE_AT_ONCE, AGAIN_LATER = 30, 20
DEATHS: tuple[Death, ...] = ("taken", "working", "answering")
KILLS_OF_EACH = 4
LONGEST_WORK = 0.3
"""Seconds after which a process is killed at work, at most. With so many at it a turn takes about as long."""

COMMAND = [str(RUNTIME), "-m", "awslambdaric", "chat.handler"]

_log = logging.getLogger(__name__)


def requests(rng: Random) -> list[list[Delivery]]:
    """What is delivered: first two requests that begin each conversation at the same moment, then all others."""
    begun: list[Delivery] = []
    others: list[Delivery] = []
    for number in range(REQUESTS):
        # Half of those that come later name the message that they answer: they begin from what a process has kept.
        later = number >= 2 * CONVERSATIONS
        body = says(f"message {number}", **({"parent": ""} if later and number % 2 else {}))
        path = conversation(f"c-{number % CONVERSATIONS}", "messages")
        request = event(ALICE, "POST", path, body, request_id=f"request-{number}")
        (others if later else begun).append(Delivery(f"request-{number}", request))
    rng.shuffle(others)
    special = rng.sample(range(len(others)), TWICE_AT_ONCE + AGAIN_LATER + KILLS_OF_EACH * len(DEATHS))
    deaths = [death for death in DEATHS for _ in range(KILLS_OF_EACH)]
    for position in special[: len(deaths)]:
        one = others[position]
        others[position] = Delivery(one.request_id, one.event, deaths.pop(), rng.uniform(0.0, LONGEST_WORK))
    for position in special[-AGAIN_LATER:]:
        one = others[position]
        others[position] = Delivery(one.request_id, one.event, again_when_answered=True)
    twice = set(special[KILLS_OF_EACH * len(DEATHS) : -AGAIN_LATER])
    return [begun, [one for n, other in enumerate(others) for one in [other] * (2 if n in twice else 1)]]


def test_every_message_is_there_once(
    task: Path,
    tmp_path: Path,
    s3_place: Place,
    s3_endpoint: str | None,
    s3_session: boto3.Session,
    s3_keys: Mapping[str, str],
) -> None:
    seed = SystemRandom().getrandbits(32)
    rng = Random(seed)
    url = f"s3://{s3_place.bucket}/{s3_place.prefix}"
    store = open_store(url, session=s3_session, endpoint_url=s3_endpoint)
    archive = Archive.create(store, partition_by="metadata.owner")
    environment = environment_of(url, s3_keys, s3_endpoint, build.PYTHON)
    began = time.monotonic()
    with Fleet(COMMAND, environment, task, tmp_path, PROCESSES) as fleet:
        started = time.monotonic()
        for deliveries in requests(rng):
            fleet.run(deliveries)
    report = (
        f"seed {seed}: {PROCESSES} processes started in {started - began:.1f} s, "
        f"{len(fleet.answers)} answers from {len(fleet.by_process)} processes in {time.monotonic() - started:.1f} s; "
        f"killed {dict(fleet.killed)}; answers {dict(Counter(status for _, status, _ in fleet.answers))}"
    )
    _log.info(report)
    tenant = Tenant("111122223333:user/alice")
    said: Counter[str] = Counter()
    for number in range(CONVERSATIONS):
        state = archive.load(tenant.stored_id(f"c-{number}"))
        assert state is not None, report
        for place in state.message_tree.walk():
            content = place.data.message.content
            assert isinstance(content, str)
            said[content] += 1
            assert int(content.split()[1]) % CONVERSATIONS == number, report
    assert said == Counter(f"message {number}" for number in range(REQUESTS)), report
    # Each delivery was answered, if not by a process that was killed then by the next one; and of those of one request
    # at most one says that it has appended the message. The answer of a process that was killed may have said so.
    assert len(fleet.answers) == REQUESTS + TWICE_AT_ONCE + AGAIN_LATER, report
    assert {request_id for request_id, _, _ in fleet.answers} == {f"request-{n}" for n in range(REQUESTS)}, report
    appended = Counter(request_id for request_id, _, body in fleet.answers if body["appended"])
    assert set(appended.values()) == {1}, report
    assert len(appended) >= REQUESTS - sum(fleet.killed.values()) - fleet.sent_again, report
    # A run that met nothing would prove nothing. At work a process may be killed between two requests.
    assert fleet.killed["taken"] == fleet.killed["answering"] == KILLS_OF_EACH, report
    assert sum(fleet.killed.values()) <= KILLS_OF_EACH * len(DEATHS), report
    archive.close()


def test_a_function_that_cannot_be_imported_says_why_to_the_platform(task: Path, tmp_path: Path) -> None:
    environment = environment_of("", {}, None, build.PYTHON)
    with (
        pytest.raises(AssertionError, match=r"init/error.*S3CONV_URL is not set"),
        Fleet(COMMAND, environment, task, tmp_path, 1),
    ):
        pass
