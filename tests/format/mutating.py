"""Damaging JSON at random places: what a hostile or broken writer may leave in the bucket."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from s3conv.errors import StorageError
from tests.strategies import json_values, names

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 10**30, 1.5, "", "x", "\x00", "2025-01-01T00:00:00", "0.0", "1.1.0",
    "2.0.0", [], [[]],
    {}, {"": None},
]  # fmt: skip

Path = tuple[str | int, ...]


@contextmanager
def refused_only_as(*errors: type[StorageError], named: str = "") -> Iterator[None]:
    """What is inside may fail with these errors, whose messages are short and name the object, and with no other."""
    try:
        yield
    except errors as error:
        told = str(error)
        assert named in told
        assert len(told) < 3_000


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of all values inside a JSON value, parents first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """A copy in which one to three values are replaced, removed, or joined by an unknown one."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(value))
        if not places:
            break
        path = draw(st.sampled_from(places))
        holder: Any = value
        for step in path[:-1]:
            holder = holder[step]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        new = copy.deepcopy(draw(st.sampled_from(HOSTILE) | json_values))
        if how == "remove":
            del holder[path[-1]]
        elif how == "add" and isinstance(holder, dict):
            holder[draw(names)] = new
        elif how == "add":
            holder.insert(draw(st.integers(0, len(holder))), new)
        else:
            holder[path[-1]] = new
    return value
