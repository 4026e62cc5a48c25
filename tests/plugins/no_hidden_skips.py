"""With CI=true, a skipped test fails unless `tests/allowed_skips.txt` allows it.

A skip that nobody looks at is a test that nobody has. The skip itself is turned into a failure, so that the
report, pytest's closing line and the exit code all say the same. The Makefile loads this file with `-p`;
without CI=true it does nothing. An expected failure (xfail) is not a skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest

ALLOWED_SKIPS = Path(__file__).parents[1] / "allowed_skips.txt"


@dataclass(frozen=True)
class AllowedSkip:
    """One line of the list: in which environment, which tests, and for which reason."""

    environment: str
    test: str
    reason: str

    def covers(self, environment: str, test: str, reason: str) -> bool:
        here = self.environment in ("all", environment)
        return here and fnmatchcase(test, self.test) and fnmatchcase(reason, self.reason)


def parse_allowed_skips(text: str) -> list[AllowedSkip]:
    """Reads `environment | test id pattern | reason pattern` lines; `#` starts a comment line."""
    allowed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        columns = [column.strip() for column in line.split("|")]
        if len(columns) != 3 or columns[0] not in ("all", "aio", "noaio") or not all(columns):
            raise pytest.UsageError(f"{ALLOWED_SKIPS.name}:{number}: not `all|aio|noaio | test | reason`: {line!r}")
        allowed.append(AllowedSkip(*columns))
    return allowed


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why the test was skipped, in the words of whoever skipped it."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


class NoHiddenSkips:
    """The hooks; registered only with CI=true."""

    def __init__(self, allowed: list[AllowedSkip], environment: str) -> None:
        self.allowed = allowed
        self.environment = environment

    def fail_if_hidden(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.outcome != "skipped" or hasattr(report, "wasxfail"):
            return
        reason = skip_reason(report)
        if not any(allowed.covers(self.environment, report.nodeid, reason) for allowed in self.allowed):
            report.outcome = "failed"
            report.longrepr = f"Skipped, and not on the list in tests/{ALLOWED_SKIPS.name}: {reason}"

    # Outermost, to see the report as pytest's own plugins leave it.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.fail_if_hidden(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        self.fail_if_hidden(report)
        return report


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") != "true":
        return
    # A module that skips itself must not keep the other modules from running.
    config.option.continue_on_collection_errors = True
    environment = "noaio" if find_spec("aioboto3") is None else "aio"
    allowed = parse_allowed_skips(ALLOWED_SKIPS.read_text(encoding="utf-8"))
    config.pluginmanager.register(NoHiddenSkips(allowed, environment))
