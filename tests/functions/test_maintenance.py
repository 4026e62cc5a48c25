"""The maintenance function: makes the archive, folds, stops in time, reports, and fails where its alarm can see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import pytest

from s3conv import AccessDeniedError, Archive, Maintained
from tests.functions.calls import ALICE, Chat, Invocation, conversation, fresh, says

SCHEDULED = {"source": "aws.scheduler", "detail-type": "Scheduled Event"}


def metrics(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_it_makes_the_archive_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid4().hex}"
    monkeypatch.setenv("S3CONV_URL", url)
    function = fresh("maintenance")
    for _ in range(2):
        assert function.handler(SCHEDULED, Invocation())["finished"]
    Archive.create(url, partition_by="metadata.owner", exist_ok=True).close()  # an error if it were another one
    assert Chat(fresh("chat"))(ALICE, "POST", conversation("c", "messages"), says("hi")).status == 201


def test_two_that_make_the_archive_at_once_get_on(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid4().hex}"
    monkeypatch.setenv("S3CONV_URL", url)
    function, create = fresh("maintenance"), Archive.create

    def after_another(*given: Any, **options: Any) -> Archive:
        create(url, partition_by="metadata.owner").close()
        return create(*given, **options)

    monkeypatch.setattr(Archive, "create", after_another)
    assert function.handler(SCHEDULED, Invocation())["finished"]


def test_it_folds_what_was_announced_and_reports_it(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        chat(ALICE, "POST", conversation(f"c-{number}", "messages"), says("hi"))
    capsys.readouterr()
    assert fresh("maintenance").handler(SCHEDULED, Invocation())["folded"] == 3
    operation, summary = metrics(capsys.readouterr().out)
    assert operation["Operation"] == "maintain"
    assert (summary["IntentsPending"], summary["Finished"]) == (0, 1)
    (described,) = summary["_aws"]["CloudWatchMetrics"]
    assert described["Dimensions"] == [["Function"]]
    assert len(chat(ALICE, "GET", "/conversations").body["conversations"]) == 3


def test_it_stops_when_its_time_is_over_which_is_no_failure(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat(ALICE, "POST", conversation("c", "messages"), says("hi"))
    capsys.readouterr()
    function = fresh("maintenance")
    assert function.handler(SCHEDULED, Invocation(seconds=0.4)) == asdict(Maintained(finished=False))
    assert metrics(capsys.readouterr().out)[-1]["Finished"] == 0
    assert function.handler(SCHEDULED, Invocation())["folded"] == 1


def test_it_tells_the_archive_how_much_time_is_left(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, told = fresh("maintenance"), []

    def maintain(timeout: float) -> Maintained:
        told.append(timeout)
        return Maintained()

    monkeypatch.setattr(function.ARCHIVE, "maintain", maintain)
    function.handler(SCHEDULED, Invocation(seconds=30))
    assert told == [29.5]


def test_what_fails_is_raised(url: str, monkeypatch: pytest.MonkeyPatch, start: Callable[[], Chat]) -> None:
    function = fresh("maintenance")

    def fail(**_: object) -> Maintained:
        raise AccessDeniedError("403")

    monkeypatch.setattr(function.ARCHIVE, "maintain", fail)
    with pytest.raises(AccessDeniedError):
        function.handler(SCHEDULED, Invocation())
