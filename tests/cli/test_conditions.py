"""`--where` becomes the filter that it reads as, and wrong ones are found before anything else happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from typer import BadParameter

from s3conv.cli.conditions import check_order, read_conditions

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        (None, {}),
        (["metadata.user_id=alice"], {"metadata.user_id": "alice"}),
        (["metadata.n=5"], {"metadata.n": 5}),
        (['metadata.n="5"'], {"metadata.n": "5"}),
        (["metadata.n=-1.5"], {"metadata.n": -1.5}),
        (["metadata.n=true", "metadata.m=null"], {"metadata.n": True, "metadata.m": None}),
        (["metadata.n=NaN"], {"metadata.n": "NaN"}),
        (["metadata.n=007"], {"metadata.n": "007"}),
        (["metadata.n=[1]"], {"metadata.n": "[1]"}),
        (["metadata.n="], {"metadata.n": ""}),
        (["metadata.url=https://a.example/?x=1&y>=2"], {"metadata.url": "https://a.example/?x=1&y>=2"}),
        (["metadata.n != 5"], {"metadata.n": {"ne": 5}}),
        (["metadata.n>=1", "metadata.n<5"], {"metadata.n": {"gte": 1, "lt": 5}}),
        (["metadata.n>1", "metadata.n<=5"], {"metadata.n": {"gt": 1, "lte": 5}}),
        (["metadata.n=1", "metadata.n!=5"], {"metadata.n": {"eq": 1, "ne": 5}}),
        (["metadata.title^=5", "metadata.title~=true"], {"metadata.title": {"prefix": "5", "contains": "true"}}),
        (["metadata.sum= =A1"], {"metadata.sum": "=A1"}),
        (['metadata.sum="=A1"'], {"metadata.sum": "=A1"}),
        (["conversation_id=5"], {"conversation_id": "5"}),
        (["conversation_id^=conv"], {"conversation_id": {"prefix": "conv"}}),
        (["message_count>=10"], {"message_count": {"gte": 10}}),
        (["updated_at>=2026-01-01"], {"updated_at": {"gte": "2026-01-01"}}),
        (
            ["metadata.at>=2026-01-31T12:00:00Z", "metadata.at<2026-02-01T02:00+02:00"],
            {"metadata.at": {"gte": NOON, "lt": datetime(2026, 2, 1, tzinfo=UTC)}},
        ),
        (["metadata.at>20260131T120000Z", 'metadata.at<="2026"'], {"metadata.at": {"gt": NOON, "lte": "2026"}}),
        (['metadata.at>="2026-01-31T12:00:00Z"'], {"metadata.at": {"gte": "2026-01-31T12:00:00Z"}}),
        (["metadata.at>=2026-01-31"], {"metadata.at": {"gte": "2026-01-31"}}),
        (["metadata.at>=2026-01-31T12:00:00"], {"metadata.at": {"gte": "2026-01-31T12:00:00"}}),
        (["metadata.at=2026-01-31T12:00:00Z"], {"metadata.at": "2026-01-31T12:00:00Z"}),
        (["metadata.at^=2026-01-31T12:00:00Z"], {"metadata.at": {"prefix": "2026-01-31T12:00:00Z"}}),
        (
            ["metadata.at>0001-01-01T00:00+14:00"],
            {"metadata.at": {"gt": datetime.fromisoformat("0001-01-01T00:00+14:00")}},
        ),
    ],
)
def test_conditions(texts: list[str] | None, where: dict[str, Any]) -> None:
    assert read_conditions(texts) == where


@pytest.mark.parametrize(
    "text",
    ["", "metadata.x", "=5", "unknown=5", "metadata.=5", "message_count=many", "updated_at>=tomorrow", "size^=1 2"],
)
def test_wrong_conditions(text: str) -> None:
    with pytest.raises(BadParameter):
        read_conditions([text])


@pytest.mark.parametrize("text", ["metadata.user_id==alice", "metadata.n!==5", "metadata.n>==5", "size <== 5"])
def test_an_operator_of_another_language_is_no_value(text: str) -> None:
    with pytest.raises(BadParameter, match=r"is no operator: .* a value that begins with = has a space before it"):
        read_conditions([text])


def test_one_condition_twice() -> None:
    with pytest.raises(BadParameter, match=r"there is a condition with != on metadata\.x already"):
        read_conditions(["metadata.x!=1", "metadata.x!=2"])


def test_orders() -> None:
    assert check_order("-metadata.rank") == "-metadata.rank"
    with pytest.raises(BadParameter):
        check_order("rank")
