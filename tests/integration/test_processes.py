"""Real processes on one archive, killed at random moments, with maintenance beside them: what is promised holds."""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random, SystemRandom

import boto3

from s3conv import Archive
from s3conv.store import ObjectStore, open_store
from tests.integration.checker import check, kinds_met
from tests.integration.journal import NONE, read_journals
from tests.integration.workload import PARTITION_BY, Job, scaled

ROOT = Path(__file__).parents[2]

_log = logging.getLogger(__name__)  # shown by `pytest -rP --log-level=INFO`

WRITERS, READERS, MAINTAINERS = 8, 1, 2
TURNS = 20
ACKED = 300
KILLS = 20
# A run that met nothing would prove nothing. That old segments are deleted is checked at the end: while all are at
# work none may be old enough.
NEEDED = (
    *("raise acked", "raise conflict", "merge acked", "edit acked", "many acked", "overwrite acked", "delete acked"),
    *("lists", "loads", "folded", "segments_merged"),
)


class Crew:
    """The processes: started anew where they end or are killed, until enough was acknowledged and enough were killed,
    and all that is needed was met.

    Nobody waits for time to pass: a kill comes after a number, drawn by chance, of journal lines by all actors. Its
    victim is then wherever it happens to be.
    """

    def __init__(self, make: Callable[[str, str, int], Job], rng: Random, journals: Path) -> None:
        self.make, self.rng, self.journals = make, rng, journals
        self.killed: dict[str, float] = {}
        self.beats, self._beat = os.pipe()
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
        self._started = 0

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.beats, selectors.EVENT_READ)
            for role, few in (("writer", WRITERS), ("reader", READERS), ("maintainer", MAINTAINERS)):
                for _ in range(few):
                    self._start(role)
            enough, lines, next_kill = False, 0, self.rng.randrange(40, 60)
            while True:
                # No line for a second: perhaps all have ended.
                if selector.select(1.0):
                    lines += len(os.read(self.beats, 64))
                enough = enough or self.has_met_enough()
                self._replace_ended(enough)
                if enough and not any(job.role == "writer" for job, _ in self._running.values()):
                    break
                if lines >= next_kill and not enough:
                    self._kill()
                    next_kill = lines + self.rng.randrange(5, 40)
        for name in list(self._running):
            self._end(name)

    def has_met_enough(self) -> bool:
        """Whether enough was acknowledged, enough were killed, one of them in a call, and all of `NEEDED` was met."""
        if len(self.killed) < KILLS:
            return False
        written = read_journals(self.journals, self.killed)
        met = kinds_met(written)
        cut_short = any(call.outcome == NONE for call in written.calls if call.actor in self.killed)
        return written.acked() >= ACKED and cut_short and all(met[kind] for kind in NEEDED)

    def _start(self, role: str) -> None:
        self._started += 1
        assert self._started < 300, f"little was acknowledged, or of {NEEDED} not all met"
        job = self.make(role, f"{role[0]}{self._started}", self.rng.getrandbits(32))
        process = subprocess.Popen(job.command(), cwd=ROOT, stdout=self._beat, stderr=subprocess.PIPE)
        self._running[job.name] = (job, process)

    def _kill(self) -> None:
        """SIGKILL, to a writer or a maintainer that is at work."""
        at_work = [
            name
            for name, (job, process) in self._running.items()
            if job.role != "reader" and process.poll() is None and (self.journals / f"{name}.jsonl").exists()
        ]
        if not at_work:
            return
        name = self.rng.choice(at_work)
        self._end(name)
        self._start({"w": "writer", "m": "maintainer"}[name[0]])

    def _end(self, name: str) -> None:
        _, process = self._running.pop(name)
        process.kill()
        _, errors = process.communicate()
        if process.returncode == -9:
            self.killed[name] = time.monotonic()
        assert process.returncode in (0, -9), errors.decode()

    def _replace_ended(self, enough: bool) -> None:
        for name, (job, process) in list(self._running.items()):
            if process.poll() is not None:
                self._end(name)
                if not enough or job.role != "writer":
                    self._start(job.role)

    def close(self) -> None:
        """Leave no process behind, whatever has happened."""
        for _, process in self._running.values():
            process.kill()
            process.communicate()
        os.close(self.beats)
        os.close(self._beat)


def run_and_check(tmp_path: Path, store: ObjectStore, job: Job) -> None:
    """Let a crew loose on the archive that `job` names, and check what it leaves."""
    seed = SystemRandom().getrandbits(32)
    rng = Random(seed)
    journals = tmp_path / "journals"
    journals.mkdir()

    def make(role: str, name: str, drawn: int) -> Job:
        turns = TURNS if role == "writer" else 10 * TURNS
        return replace(
            job,
            role=role,
            name=name,
            seed=drawn,
            turns=turns,
            journals=str(journals),
            asynchronous=drawn % 2 == 0 and (job.endpoint is None or find_spec("aioboto3") is not None),
            windowed=role == "writer" and drawn % 5 == 0,
        )

    Archive.create(store, partition_by=PARTITION_BY)
    crew = Crew(make, rng, journals)
    try:
        crew.run()
    finally:
        crew.close()
    written = read_journals(journals, crew.killed)
    met = kinds_met(written)
    with scaled():
        verdict = check(store, written)
    report = f"seed {seed}, journals in {journals}\nmet {dict(met)}\nchecked {dict(verdict.checked)}"
    assert not verdict.violations, "\n".join([report, *verdict.violations[:20]])
    assert crew.has_met_enough(), report
    _log.info(report)


def test_killed_processes_on_a_directory(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/archive"
    run_and_check(tmp_path, open_store(url), Job("", "", 0, 0, url, ""))


def test_killed_processes_on_s3(tmp_path: Path, s3_endpoint: str, s3_session: boto3.Session, s3_bucket: str) -> None:
    credentials = s3_session.get_credentials()
    assert credentials is not None
    url = f"s3://{s3_bucket}/archive"
    job = Job(
        "", "", 0, 0, url, "", endpoint=s3_endpoint, key=credentials.access_key, secret=credentials.secret_key or ""
    )
    run_and_check(tmp_path, open_store(url, session=s3_session, endpoint_url=s3_endpoint), job)
