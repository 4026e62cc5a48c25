"""The benchmark of one turn counts what it says that it counts, and s3conv takes the requests that it promises.

Of time nothing is asserted here. How many requests wait for one another is, at the store's port, in tests/core.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.slow_s3 import Request, slow_s3
from benchmarks.turn import asked, cost_of, environment, prepare, series_of, turns
from benchmarks.turn_systems import OURS


def request(began: float, answered: float, method: str = "GET") -> Request:
    return Request(began, answered, method, "/chats/a", 10, 200)


def test_series_are_the_longest_chain() -> None:
    assert series_of([]) == 0
    assert series_of([request(0, 1), request(1, 2), request(2.5, 3)]) == 3
    assert series_of([request(0, 1), request(0.1, 1.2), request(0.2, 1.1)]) == 1
    # Two at once, then one; and one slow request beside a chain of three.
    assert series_of([request(0, 1), request(0.5, 1.5), request(1.6, 2)]) == 2
    assert series_of([request(0, 9), request(1, 2), request(3, 4), request(5, 6)]) == 3


def test_dollars_are_those_of_the_price_list() -> None:
    methods = ["PUT", "PUT", "LIST", "GET", "HEAD", "DELETE", "POST"]
    cost = cost_of([request(number, number + 0.5, method) for number, method in enumerate(methods)], 7.0)
    assert cost.dollars == pytest.approx(2 * 5.0 + 5.0 + 0.4 + 0.4)
    assert (cost.requests, cost.series, cost.up, cost.down, cost.milliseconds) == (7, 7, 70, 1400, 7.0)


@pytest.mark.parametrize(
    ("name", "cold", "warm"),
    [
        ("s3conv, load and save", ["GET", "GET", "PUT", "PUT"], ["GET", "PUT", "PUT"]),
        ("s3conv, edit", ["GET", "GET", "PUT", "PUT"], ["PUT", "PUT"]),
        ("s3conv, edit in an activity window", ["GET", "GET", "PUT"], ["PUT"]),
    ],
)
def test_a_turn_takes_the_requests_that_are_promised(
    name: str, cold: list[str], warm: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in OURS
    first, second, third = turns(3)
    with slow_s3("none", tmp_path, 0.0) as server:
        for variable, value in environment(server.url).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        prepare(name, "chats")
        with asked(server, name, "chats") as process:
            process.do(["open"], ["say", *first])
        with asked(server, name, "chats") as process:
            server.requests()
            process.do(["open"], ["say", *second])
            assert sorted(one.method for one in server.requests()) == cold
            process.do(["say", *third])
            assert sorted(one.method for one in server.requests()) == warm
            assert process.texts() == [*first, *second, *third]
